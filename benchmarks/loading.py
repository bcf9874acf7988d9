"""Loading speed: pairs from the cache, and a whole epoch of each script.

    python -m benchmarks.loading

Pairs: crops, geometry and label in batches of 16 from a DataLoader without workers and a warm cache, against
decoding; both must be bit-identical before timing. Epochs: train_one_epoch of all five scripts, with warm
caches and images of at most 128 pixels, against the same batches in memory; both augment in the step.
"""

import copy
from collections import deque
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import judge, measure, run
from benchmarks.scripts import SCRIPTS, Batches, Training, prepare
from datasets.images import read_image
from datasets.jrdb.crops import crop_people
from datasets.jrdb.dataset import JRDBPairDataset
from datasets.jrdb.labels import IMAGE_FOLDER
from utils.training.distributed import as_collated, make_loader

BATCH = 16
STEPS = {"train_mae": 2, "train_ddp": 2, "train_anomaly_with_labels": 8}  # about a second; 30 for the others


class NaivePairs(Dataset):
    """Naive reading: each pair opens its panorama and crops two people."""

    def __init__(self, pairs: JRDBPairDataset, data_path: Path, size: tuple[int, int]):
        self.pairs, self.size = pairs, size
        frames = zip(pairs.frame_sequences, pairs.frame_keys, strict=True)
        self.paths = [data_path / IMAGE_FOLDER / pairs.sequences[s] / str(key) for s, key in frames]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        pairs = self.pairs
        people = pairs.boxes[[pairs.left[index], pairs.right[index]]]
        left, right = crop_people(read_image(self.paths[pairs.frames[index]]), people, self.size)
        geometry = torch.from_numpy(pairs.geometry[index])
        return {"left": left, "right": right, "geometry": geometry, "label": int(pairs.labels[index])}


def check_pixels(ours: DataLoader, naive: DataLoader) -> None:
    """Assert that both loaders give the same pixels, geometry and labels in the same order."""
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


def check_losses(training: Training, memory: Batches, steps: int) -> None:
    """Assert that loader and memory give bit-identical losses from the same weights."""
    start = copy.deepcopy((training.model.state_dict(), training.optimizer.state_dict()))
    losses = []
    for loader in (None, memory):
        training.model.load_state_dict(start[0])
        training.optimizer.load_state_dict(copy.deepcopy(start[1]))
        losses.append(training.epoch(loader, steps=steps)["loss"])
    if losses[0] != losses[1]:
        raise AssertionError(f"loss {losses[0]} from the loader, {losses[1]} from memory")


def epoch_vs_memory(quick: bool) -> None:
    torch.set_num_threads(1)
    for name in SCRIPTS:
        training = prepare(name)
        steps = min(len(training.sampler), 1 if quick else STEPS.get(name, 30))
        training.sampler.start(epoch=1)
        indices = [training.sampler.part(step)[0] for step in range(steps)]
        memory = Batches([training.train.__getitems__(chosen) for chosen in indices], training.loader)
        check_losses(training, memory, steps)
        calls = {
            f"{name}, {steps} steps": lambda t=training, s=steps: t.epoch(steps=s),
            f"{name}, in memory": lambda t=training, m=memory, s=steps: t.epoch(m, steps=s),
        }
        epoch, in_memory = measure(calls, quick).values()
        judge(f"{name}: epoch / in memory", epoch / in_memory, at_most=1.1)
    print("1 thread, `--num_workers 0`.\n")


if __name__ == "__main__":
    run("Pair loader against decoding the panorama for every pair", pair_loader)
    run("Epoch against the same steps on tensors in memory", epoch_vs_memory)
