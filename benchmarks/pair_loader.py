"""Pair loader against decoding the panorama per pair.

    python -m benchmarks.pair_loader

Crops, geometry and label of the same pairs in batches of 16 through a DataLoader without workers, the pixels
compared bit for bit before the timing. The cache is warm: the second epoch on.
"""

from collections import deque
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import judge, measure, run
from benchmarks.scripts import prepare
from datasets.jrdb.crops import crop_regions
from datasets.jrdb.dataset import JRDBPairDataset
from datasets.jrdb.labels import IMAGE_FOLDER
from utils.training.distributed import as_collated, make_loader

BATCH = 16


class NaivePairs(Dataset):
    """Pairs read naively: each opens its panorama and cuts two people from it."""

    def __init__(self, pairs: JRDBPairDataset, data_path: Path, size: tuple[int, int]):
        self.pairs, self.size = pairs, size
        frames = zip(pairs.frame_sequences, pairs.frame_keys, strict=True)
        self.paths = [data_path / IMAGE_FOLDER / pairs.sequences[s] / str(key) for s, key in frames]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        pairs = self.pairs
        with Image.open(self.paths[pairs.frames[index]]) as file:
            panorama = np.asarray(file.convert("RGB"))  # (H, W, 3)
        people = pairs.left[index], pairs.right[index]
        left, right = (cut_person(panorama, pairs.boxes[person], self.size) for person in people)
        geometry = torch.from_numpy(pairs.geometry[index])
        return {"left": left, "right": right, "geometry": geometry, "label": int(pairs.labels[index])}


def cut_person(panorama: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """(3, *size) uint8 of one box, wrapped round the seam, padded with the mean colour above and below."""
    height, width = panorama.shape[:2]
    left, top, crop_width, crop_height = crop_regions(box[None], size)[0]
    columns = np.arange(left, left + crop_width) % width
    first, last = max(top, 0), min(top + crop_height, height)
    total = panorama.reshape(height * width, 3).sum(axis=0, dtype=np.int64)
    region = np.empty((crop_height, crop_width, 3), np.uint8)
    region[:] = (total + height * width // 2) // (height * width)
    region[first - top : last - top] = panorama[first:last, columns]
    pixels = torch.from_numpy(region).permute(2, 0, 1)[None]  # (1, 3, h, w)
    return F.interpolate(pixels, size=size, mode="bilinear", antialias=True)[0]


def check_pixels(ours: DataLoader, naive: DataLoader) -> None:
    """Both loaders must give the same pixels, geometry and labels in the same order."""
    for a, b in zip(ours, naive, strict=True):
        pairs = [(a["crops"][a["left"]], b["left"]), (a["crops"][a["right"]], b["right"])]
        pairs += [(a["geometry"].nan_to_num(-9), b["geometry"].nan_to_num(-9)), (a["labels"], b["label"])]
        if not all(torch.equal(*pair) for pair in pairs):
            raise AssertionError("the cached pairs are not those decoded from the panoramas")


def pair_loader(quick: bool) -> None:
    torch.set_num_threads(1)
    training = prepare("train_stage1")
    size, train = tuple(training.args.image_size), training.train
    indices = [index for step in range(1 if quick else 4) for index in training.sampler.part(step)[0]]
    batches = [indices[k : k + BATCH] for k in range(0, len(indices), BATCH)]
    ours = make_loader(train, batches, 0, training.device)
    naive = DataLoader(NaivePairs(train, training.data.data_path, size), batch_sampler=batches)
    check_pixels(ours, naive)
    ready = [train.__getitems__(batch) for batch in batches]
    loaders = {
        f"decode per pair, {len(indices)} pairs": naive,
        "cache": ours,
        "limit: batches in memory": DataLoader(ready, batch_size=None, collate_fn=as_collated),
    }
    calls = {name: lambda loader=loader: deque(loader, maxlen=0) for name, loader in loaders.items()}
    slow, fast, _ = measure(calls, quick).values()
    print(f"1 thread; crops {size[0]}x{size[1]}.\n")
    judge("pair loader, times faster than decoding per pair", slow / fast, at_least=20)


if __name__ == "__main__":
    run(__doc__.splitlines()[0], pair_loader)
