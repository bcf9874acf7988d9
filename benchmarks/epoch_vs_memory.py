"""Epoch against the same steps on tensors in memory.

    python -m benchmarks.epoch_vs_memory

All five scripts, their own train_one_epoch, caches warm, images of at most 128 pixels. The in-memory variant
gets the same batches in the same order; augmentation is part of the step in both.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.measure import judge, measure, run
from benchmarks.scripts import SCRIPTS, Training, prepare
from utils.training.distributed import EpochSampler

STEPS = {"train_mae": 2, "train_ddp": 2, "train_anomaly_with_labels": 8}  # about a second each; else 30


@dataclass
class InMemory:
    """Batches that are tensors already, in the place of a loader."""

    batches: list[dict[str, torch.Tensor]]
    dataset: Any
    batch_sampler: EpochSampler

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return iter(self.batches)


def check_losses(training: Training, memory: InMemory, steps: int) -> None:
    """The losses of both variants from the same weights must be equal, bit for bit."""
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
        batches = [training.train.__getitems__(training.sampler.part(step)[0]) for step in range(steps)]
        memory = InMemory(batches, training.train, training.sampler)
        check_losses(training, memory, steps)
        calls = {
            f"{name}, {steps} steps": lambda t=training, s=steps: t.epoch(steps=s),
            f"{name}, in memory": lambda t=training, m=memory, s=steps: t.epoch(m, steps=s),
        }
        epoch, in_memory = measure(calls, quick).values()
        judge(f"{name}: epoch / in memory", epoch / in_memory, at_most=1.1)
    print("1 thread, `--num_workers 0`.\n")


if __name__ == "__main__":
    run(__doc__.splitlines()[0], epoch_vs_memory)
