"""What does a pair of people cost: from the cache of crops, and by decoding its panorama?

    python -m benchmarks.pair_loader

Both give the crops, geometry and label of the same pairs in batches of 16 through a DataLoader without
workers; the pixels are compared, bit for bit, before the timing. The cache is warm: the second epoch on.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.report import Report, parse_quick
from benchmarks.scripts import prepare, use_one_thread
from benchmarks.timing import measure, times_faster
from datasets.jrdb.crops import crop_regions
from datasets.jrdb.dataset import JRDBPairDataset
from datasets.jrdb.labels import IMAGE_FOLDER
from utils.training.distributed import as_collated, make_loader

BATCH = 16


class NaivePairs(Dataset):
    """Pairs read naively: each opens its panorama and cuts two people from it."""

    def __init__(self, pairs: JRDBPairDataset, data_path: Path, size: tuple[int, int]):
        self.pairs, self.size = pairs, size
        folder = data_path / IMAGE_FOLDER
        self.paths = [
            folder / pairs.sequences[s] / str(key)
            for s, key in zip(pairs.frame_sequences, pairs.frame_keys, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        pairs = self.pairs
        with Image.open(self.paths[pairs.frames[index]]) as file:
            panorama = np.asarray(file.convert("RGB"))  # (H, W, 3)
        left, right = (
            cut_person(panorama, pairs.boxes[person], self.size)
            for person in (pairs.left[index], pairs.right[index])
        )
        geometry = torch.from_numpy(pairs.geometry[index])
        return {"left": left, "right": right, "geometry": geometry, "label": int(pairs.labels[index])}


def cut_person(panorama: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """(3, *size) uint8 of one box, wrapped round the seam, padded with the mean colour above and below."""
    height, width = panorama.shape[:2]
    left, top, crop_width, crop_height = crop_regions(box[None], size, width, height)[0]
    columns = np.arange(left, left + crop_width) % width
    first, last = max(top, 0), min(top + crop_height, height)
    region = panorama[first:last, columns]
    if len(region) < crop_height:
        total = (
            panorama.reshape(height, -1)
            .sum(axis=0, dtype=np.uint32)
            .reshape(width, 3)
            .sum(axis=0, dtype=np.int64)
        )
        mean = (total + height * width // 2) // (height * width)
        padded = np.empty((crop_height, crop_width, 3), np.uint8)
        padded[:] = mean
        padded[first - top : last - top] = region
        region = padded
    pixels = torch.from_numpy(region).permute(2, 0, 1)[None]  # (1, 3, h, w)
    return F.interpolate(pixels, size=size, mode="bilinear", antialias=True)[0]


def check_equal(ours: DataLoader, naive: DataLoader) -> None:
    """Both loaders must give the same pixels, geometry and labels in the same order."""
    for a, b in zip(ours, naive, strict=True):
        same = (
            torch.equal(a["crops"][a["left"]], b["left"])
            and torch.equal(a["crops"][a["right"]], b["right"])
            and torch.equal(a["geometry"].nan_to_num(-9), b["geometry"].nan_to_num(-9))
            and torch.equal(a["labels"], b["label"])
        )
        if not same:
            raise AssertionError("the cached pairs are not those decoded from the panoramas")


def exhaust(loader: DataLoader) -> None:
    for _ in loader:
        pass


def main() -> None:
    quick = parse_quick(__doc__)
    use_one_thread()
    report = Report("pair_loader", "Pair loader against decoding the panorama per pair", quick)
    training = prepare("train_stage1")
    size = tuple(training.args.image_size)
    indices = [index for step in range(1 if quick else 4) for index in training.sampler.part(step)[0]]
    batches = [indices[k : k + BATCH] for k in range(0, len(indices), BATCH)]
    ours = make_loader(training.train, batches, 0, training.device)
    naive = DataLoader(NaivePairs(training.train, training.data.data_path, size), batch_sampler=batches)
    check_equal(ours, naive)
    in_memory = DataLoader(
        [training.train.__getitems__(b) for b in batches], batch_size=None, collate_fn=as_collated
    )
    timings = measure(
        {
            f"decode per pair, {len(indices)} pairs": lambda: exhaust(naive),
            "cache": lambda: exhaust(ours),
            "limit: batches in memory": lambda: exhaust(in_memory),
        },
        *((3, 0.05) if quick else (9, 0.3)),
    )
    report.timings(timings, "ms")
    names = list(timings)
    faster = times_faster(timings[names[0]], timings[names[1]])
    report.judge("pair loader, times faster than decoding per pair", faster, at_least=20, aim=">= 45x")
    paths = naive.dataset.paths
    kilobytes = np.mean([path.stat().st_size for path in paths[:20]]) / 1000
    report.note(
        f"1 thread; panoramas 3760x480 JPEG of {kilobytes:.0f} KB on average; crops {size[0]}x{size[1]}."
    )
    report.finish()


if __name__ == "__main__":
    main()
