"""One or many processes: the same script, the same samples per global step, the same metrics.

A script never branches on the number of processes; Run.place wraps its model in DistributedDataParallel.
"""

import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from utils.run.errors import CommandError
from utils.run.script import SAVE_SIGNAL, ending_signals
from utils.training.device import choose_device, keep_freed_memory

WORKER_TIMEOUT = 300  # seconds that a loader process may take for a batch before that is an error


@dataclass(frozen=True)
class Processes:
    """This process's rank and device, and the number of processes."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def from_first(self, make: Callable[[], Any]) -> Any:
        """Call make() on rank 0 and give its result (plain Python values or tensors) to every rank."""
        box = [make() if self.first else None]
        if self.world_size > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]


def start_processes(device_name: str) -> Processes:
    """Join the group that torchrun announces in the environment (gloo on CPU, nccl on CUDA), if any."""
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if device_name.startswith("cuda:") and int(os.environ.get("LOCAL_WORLD_SIZE", 1)) > 1:
        raise CommandError(f"--device {device_name}: the processes would share one GPU; use --device cuda")
    device = choose_device(device_name, int(os.environ.get("LOCAL_RANK", 0)))
    if device.type == "cpu":
        keep_freed_memory()
    if world_size > 1 and not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        limit = timedelta(minutes=30)
        store, rank, world_size = next(dist.rendezvous("env://", timeout=limit))
        if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":  # nodes may differ in how often they restarted
            # torchrun keeps one store across --max-restarts: without a prefix of its own, an attempt would
            # find the addresses of dead processes.
            store = dist.PrefixStore(f"attempt_{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=limit)
    return Processes(rank, world_size, device)


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def gather(value: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """The value (anything that pickles) of every process of the group, by rank."""
    every = [value]
    if dist.is_initialized():
        every *= dist.get_world_size()
        dist.all_gather_object(every, value, group=group)
    return every


def gather_rows(batches: list[dict[str, torch.Tensor]]) -> dict[str, np.ndarray]:
    """The rows of all batches of all ranks, sorted by 'indices', which must be unique.
    Collect clones of what loader workers make: every tensor of theirs holds a file open."""
    keys = batches[0] if batches else ()  # a rank may have got no batch
    mine = {key: np.concatenate([batch[key].numpy() for batch in batches]) for key in keys}
    parts = [part for part in gather(mine) if part]
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    _, order = np.unique(joined["indices"], return_index=True)
    if len(order) != len(joined["indices"]):
        raise RuntimeError("evaluation saw a sample twice; evaluation_batches must not overlap")
    return {key: value[order] for key, value in joined.items()}


def broadcast_buffers(model: torch.nn.Module) -> None:
    """Copy rank 0's buffers (BatchNorm statistics) to every rank, so that all evaluate the same model."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def seed_everything(*key: int) -> None:
    """Seed torch's default generators from integers such as (seed, epoch, step, rank).
    default_generator takes 2 microseconds (torch.manual_seed 200), so every step can afford it."""
    state = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    torch.default_generator.manual_seed(state)
    if torch.cuda.is_initialized():  # else torch would note the call with its stack
        torch.cuda.manual_seed(state)


class EpochSampler:
    """Lists of sample indices for this rank, one per step; over all ranks each sample comes once per epoch.

    Frames are shuffled by (seed, epoch) and stay whole (`frames[i]` = the frame of sample i; without frames
    each sample is one). The samples are then cut into global batches of batch_size * world_size, of which
    each rank takes a contiguous part. The last global batch is split evenly; a rank left with nothing
    computes a sample of that batch with weight 0. With `draw`, an epoch takes only the samples draw(epoch),
    which must depend on the epoch alone; within a frame they keep that order."""

    def __init__(
        self, length: int, batch_size: int, seed: int, processes: Processes, frames: np.ndarray | None = None,
        draw: Callable[[int], np.ndarray] | None = None,
    ):  # fmt: skip
        self.frames = np.arange(length) if frames is None else frames
        self.draw = draw or (lambda epoch: np.arange(length))
        self.batch_size, self.seed = batch_size, seed
        self.rank, self.world_size = processes.rank, processes.world_size
        self.start(epoch=1)

    def start(self, epoch: int, step: int = 0) -> None:
        """Begin `epoch` (from 1) at `step` (from 0)."""
        rng = np.random.default_rng([self.seed, epoch])
        samples = self.draw(epoch)
        # The place of each sample's frame in this epoch.
        place = rng.permutation(self.frames.max() + 1)[self.frames[samples]]
        self.order, self.first_step = samples[np.argsort(place, kind="stable")], step
        self.steps = -(-len(samples) // (self.batch_size * self.world_size))

    def part(self, step: int) -> tuple[list[int], float]:
        """This rank's samples in a step, and the weight of their summed loss: world_size / global count."""
        size = self.batch_size * self.world_size
        batch = self.order[step * size : (step + 1) * size]
        mine = np.array_split(batch, self.world_size)[self.rank]
        if len(mine) == 0:
            return batch[:1].tolist(), 0.0
        return mine.tolist(), self.world_size / len(batch)

    def __iter__(self) -> Iterator[list[int]]:
        return (self.part(step)[0] for step in range(self.first_step, self.steps))

    def __len__(self) -> int:
        return self.steps - self.first_step


def as_collated(batch: Any) -> Any:  # a data set's __getitems__ gives whole batches
    return batch


def outlive_signals(worker: int) -> None:
    """In a loader process: leave signals to the training process, but end 30 s after an ending signal."""
    for number in filter(None, (signal.SIGINT, SAVE_SIGNAL)):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        for number in ending_signals():
            signal.signal(number, lambda number, frame: signal.alarm(30))


class Loader(DataLoader):
    """A DataLoader with a clear error for a loader process that dies while it hands over a batch."""

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from super().__iter__()
        except (ConnectionError, EOFError) as error:
            if not self.num_workers:
                raise
            raise RuntimeError(f"a DataLoader worker died while it handed over a batch: {error!r}") from error


def make_loader(
    dataset: Dataset, batches: Iterable[list[int]], num_workers: int, device: torch.device
) -> DataLoader:
    """A DataLoader over index lists; `batches` is an EpochSampler or a list of evaluation_batches."""
    # Python 3.14 would start workers from a server, and each would import torch anew in every epoch.
    forked = "fork" if num_workers and sys.platform == "linux" else None
    return Loader(
        dataset, batch_sampler=batches, num_workers=num_workers, collate_fn=as_collated,
        pin_memory=device.type == "cuda", timeout=WORKER_TIMEOUT if num_workers else 0,
        worker_init_fn=outlive_signals, multiprocessing_context=forked,
    )  # fmt: skip


def evaluation_batches(frames: np.ndarray, batch_size: int, processes: Processes) -> list[list[int]]:
    """This rank's batches of whole frames, about `batch_size` samples each. Over all ranks each sample comes
    once, and in the same batch for any number of processes."""
    order = np.argsort(frames, kind="stable")
    starts = np.flatnonzero(np.diff(frames[order], prepend=-1))  # where each frame begins
    cuts = [0]
    for start in [*starts[1:].tolist(), len(order)]:
        if start - cuts[-1] >= batch_size or start == len(order):
            cuts.append(start)
    batches = [order[a:b].tolist() for a, b in itertools.pairwise(cuts)]
    return batches[processes.rank :: processes.world_size]


def evaluation_loader(
    dataset: Dataset, batch_size: int, processes: Processes, num_workers: int = 0
) -> DataLoader:
    """This rank's share of a data set, in the batches of `evaluation_batches`."""
    batches = evaluation_batches(dataset.frames, batch_size, processes)
    return make_loader(dataset, batches, num_workers, processes.device)
