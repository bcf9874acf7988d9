"""Loading speed: pairs from the cache, and a whole epoch of each script.

    python -m benchmarks.loading

Pairs: crops, geometry and label in batches of 16 from a DataLoader without workers and a warm cache, against
decoding; both must be bit-identical before timing. Epochs: train_one_epoch of all five scripts, with warm
caches and images of at most 128 pixels, against the same batches in memory; both augment in the step.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader, default_collate

from benchmarks.measure import judge, measure, run
from benchmarks.scripts import SCRIPTS, Batches, prepare
from datasets.images import read_image
from datasets.jrdb.crops import crop_people
from datasets.jrdb.dataset import JRDBPairDataset
from datasets.jrdb.labels import IMAGE_FOLDER
from utils.training.distributed import as_collated, make_loader

BATCH = 16
STEPS = {"train_mae": 2, "train_ddp": 2, "train_anomaly_with_labels": 8}  # about a second; 30 for the others


def decode_pairs(
    pairs: JRDBPairDataset, data_path: Path, size: tuple[int, int], batches: list[list[int]]
) -> Iterator[dict[str, torch.Tensor]]:
    """Naive reading: each pair opens its panorama and crops two people."""
    for batch in batches:
        rows = []
        for index in batch:
            frame = pairs.frames[index]
            sequence, key = pairs.sequences[pairs.frame_sequences[frame]], str(pairs.frame_keys[frame])
            people = pairs.boxes[[pairs.left[index], pairs.right[index]]]
            left, right = crop_people(read_image(data_path / IMAGE_FOLDER / sequence / key), people, size)
            geometry = torch.from_numpy(pairs.geometry[index])
            rows.append(
                {"left": left, "right": right, "geometry": geometry, "label": int(pairs.labels[index])}
            )
        yield default_collate(rows)


def check_pixels(ours: Iterable[dict], naive: Iterable[dict]) -> None:
    """Assert that both give the same pixels, geometry and labels in the same order."""
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
    naive = partial(decode_pairs, train, training.data.data_path, size, batches)
    check_pixels(ours, naive())
    ready = [train.__getitems__(batch) for batch in batches]
    memory = DataLoader(ready, batch_size=None, collate_fn=as_collated)
    calls = {
        f"decode per pair, {len(indices)} pairs": lambda: list(naive()),
        "cache": lambda: list(ours),
        "limit: batches in memory": lambda: list(memory),
    }
    slow, fast, _ = measure(calls, quick).values()
    print(f"1 thread; crops {size[0]}x{size[1]}.\n")
    judge("pair loader, times faster than decoding per pair", slow / fast, at_least=20)


def epoch_vs_memory(quick: bool) -> None:
    torch.set_num_threads(1)
    for name in SCRIPTS:
        training = prepare(name)
        steps = min(len(training.sampler), 1 if quick else STEPS.get(name, 30))
        training.sampler.start(epoch=1)
        indices = [training.sampler.part(step)[0] for step in range(steps)]
        memory = Batches([training.train.__getitems__(chosen) for chosen in indices], training.loader)
        losses = [prepare(name).epoch(loader, steps=steps)["loss"] for loader in (None, memory)]
        if losses[0] != losses[1]:  # of the same first weights
            raise AssertionError(f"loss {losses[0]} from the loader, {losses[1]} from memory")
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
