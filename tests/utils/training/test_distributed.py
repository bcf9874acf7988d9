"""Samplers: every sample once, whatever the number of processes."""

import multiprocessing
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from tests.faults.children import on_ranks
from utils.run.errors import CommandError
from utils.training.distributed import (
    EpochSampler,
    Processes,
    broadcast_buffers,
    evaluation_batches,
    gather_rows,
    make_loader,
    seed_everything,
    start_processes,
    sum_over_ranks,
)

CPU = torch.device("cpu")


def samplers(world: int, length: int, batch: int, frames=None) -> list[EpochSampler]:
    return [EpochSampler(length, batch, 7, Processes(rank, world, CPU), frames) for rank in range(world)]


@pytest.mark.parametrize("length", [1, 2, 7, 12, 13, 25])
def test_any_number_of_processes_sees_the_same_global_batches(length):
    alone = list(samplers(1, length, 12)[0])
    assert sorted(sum(alone, [])) == list(range(length))
    for world in (2, 3):
        ranks = samplers(world, length, 12 // world)
        for step, batch in enumerate(alone):
            parts = [rank.part(step) for rank in ranks]
            assert sum((part for part, weight in parts if weight), []) == batch
            # averaging local_sum * weight over the ranks gives the mean over the global batch
            assert sum(len(part) * weight for part, weight in parts) / world == pytest.approx(1)
            assert all(len(part) > 0 for part, _ in parts)


def test_order_depends_on_seed_and_epoch_only():
    sampler = samplers(1, 50, 8)[0]
    first = list(sampler)
    sampler.start(2)
    assert list(sampler) != first
    sampler.start(1)
    assert list(sampler) == first
    assert list(EpochSampler(50, 8, 8, Processes(0, 1, CPU))) != first  # another seed
    sampler.start(1, step=3)
    assert list(sampler) == first[3:] and len(sampler) == len(first) - 3


def test_an_epoch_takes_what_it_draws_on_any_number_of_processes_and_after_a_stop():
    frames = np.repeat(np.arange(20), 5)

    def draw(epoch):
        return np.sort(np.random.default_rng(epoch).choice(100, 30 + epoch, replace=False))

    def make(world):
        return [
            EpochSampler(100, 12 // world, 7, Processes(rank, world, CPU), frames, draw)
            for rank in range(world)
        ]

    for epoch in (1, 2, 5):
        alone, *ranks = make(1) + make(3)
        for sampler in (alone, *ranks):
            sampler.start(epoch)
        batches = list(alone)
        assert sorted(sum(batches, [])) == draw(epoch).tolist() and alone.steps == len(batches)
        for step, batch in enumerate(batches):
            parts = [rank.part(step) for rank in ranks]
            assert sum((part for part, weight in parts if weight), []) == batch
        alone.start(epoch, step=2)
        assert list(alone) == batches[2:]


def test_frames_stay_together():
    frames = np.repeat(np.arange(10), 40)
    order = np.concatenate(list(samplers(1, 400, 6, frames)[0]))
    seen = frames[order]
    assert np.count_nonzero(np.diff(seen)) == 9  # ten runs of one frame each
    assert seen.tolist() != frames.tolist()
    assert all((np.diff(order[seen == k]) == 1).all() for k in range(10))  # within a frame in their order


def test_evaluation_batches_hold_whole_frames_and_every_sample_once():
    frames = np.array([3, 0, 0, 1, 1, 1, 2, 3, 3, 3, 5])
    alone = evaluation_batches(frames, 4, Processes(0, 1, CPU))
    assert sorted(sum(alone, [])) == list(range(11))
    for batch in alone:
        for frame in set(frames[batch]):
            assert set(np.flatnonzero(frames == frame)) <= set(batch)
    for world in (2, 3, 9):
        parts = [evaluation_batches(frames, 4, Processes(rank, world, CPU)) for rank in range(world)]
        assert sorted(sum(parts, [])) == sorted(alone)


def test_an_evaluation_batch_ends_with_the_frame_that_fills_it():
    frames = np.repeat(np.arange(4), [4, 4, 2, 5])
    batches = evaluation_batches(frames, 4, Processes(0, 1, CPU))
    assert [len(batch) for batch in batches] == [4, 4, 7]


def test_gather_puts_rows_in_order_and_refuses_doubles():
    batches = [([2], [0.5]), ([0, 1], [0.0, 0.25])]
    rows = gather_rows([{"indices": torch.tensor(i), "scores": torch.tensor(s)} for i, s in batches])
    assert rows["scores"].tolist() == [0.0, 0.25, 0.5]
    with pytest.raises(RuntimeError, match="twice"):
        gather_rows([{"indices": torch.tensor([1])}, {"indices": torch.tensor([1, 0])}])


def test_two_processes_give_each_other_what_they_have():
    def work() -> int:
        processes = start_processes("cpu")
        model, rank = torch.nn.BatchNorm1d(1), processes.rank
        model.running_mean.fill_(5.0 + rank)
        broadcast_buffers(model)
        rows = gather_rows([] if rank else [{"indices": torch.tensor([1, 0])}])  # the second got no batch
        found = processes.from_first(lambda: rank), model.running_mean.item(), rows["indices"].tolist()
        return int((*found, sum_over_ranks(torch.tensor(rank + 1)).item()) != (0, 5.0, [0, 1], 3))

    assert on_ranks(2, work) == [0, 0]


def test_one_gpu_is_not_given_to_all_processes(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(CommandError, match="share one GPU; use --device cuda$"):
        start_processes("cuda:0")


def test_seeds_are_repeatable_and_differ_by_step_and_rank():
    def draw(*key: int) -> float:
        seed_everything(*key)
        return torch.rand(1).item()

    assert draw(42, 1, 0, 0) == draw(42, 1, 0, 0)
    assert (
        len({draw(42, 1, 0, 0), draw(42, 1, 1, 0), draw(42, 1, 0, 1), draw(42, 2, 0, 0), draw(43, 1, 0, 0)})
        == 5
    )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a fork is not safe")
def test_workers_import_nothing_anew_where_python_would_start_them_from_a_server():
    """Python 3.14's default start method is forkserver: torch would be imported in every epoch."""
    kept = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("forkserver", force=True)
    try:
        loader = make_loader(TensorDataset(torch.arange(4)), [[0, 1], [2, 3]], 2, CPU)
        assert loader.multiprocessing_context.get_start_method() == "fork"
    finally:
        multiprocessing.set_start_method(kept, force=True)


def test_on_a_machine_with_a_gpu_a_cpu_run_leaves_it_alone(monkeypatch):
    """Until CUDA is first used, torch notes every seed with its call stack."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: pytest.fail("seeded"))
    seed_everything(1, 2)
