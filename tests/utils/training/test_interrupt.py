"""What a run says in the middle of a long epoch, and how long it may take."""

from types import SimpleNamespace

import pytest
import torch

from tests.faults.children import on_ranks
from utils.run.status import Status
from utils.training.distributed import EpochSampler, Processes, make_loader, start_processes
from utils.training.interrupt import Interrupt

ALONE = Processes(0, 1, torch.device("cpu"))


def make(folder, processes):
    args = SimpleNamespace(max_batches=0, log_interval=2, max_hours=2.0, stall_timeout=0, dry_run=False)
    status = Status(folder, epochs=3, patience=0, enabled=processes.first)
    return Interrupt(SimpleNamespace(processes=processes, status=status, args=args, folder=folder), save=None)


@pytest.fixture
def interrupt(tmp_path):
    return make(tmp_path, ALONE)


class Numbers:
    def __getitems__(self, chosen):
        return chosen


@pytest.fixture
def loader():
    return make_loader(Numbers(), EpochSampler(18, 4, 0, ALONE), 0, ALONE.device)


def test_a_long_epoch_says_its_mean_loss_so_far_and_when_the_run_will_end(interrupt, loader, caplog):
    caplog.set_level("INFO", "run")
    totals = torch.zeros(2)
    for step, batch in interrupt.steps(loader, 2, totals):
        totals += torch.tensor([step * len(batch), len(batch)])
    said = [f"epoch 002 step {done}/5 train_loss {mean} so far" for done, mean in ((2, 0.5), (4, 1.5))]
    assert caplog.messages[:2] == said
    assert "for 2 epochs of 5 steps" in caplog.messages[2]  # the second and the third


def test_a_signal_of_before_the_first_step_is_not_kept_waiting_by_it(interrupt, loader):
    saved, interrupt.wish = [], 143
    interrupt.save = lambda done, *more: saved.append(done)
    with pytest.raises(SystemExit):
        next(interrupt.steps(loader, 1, torch.zeros(2)))
    assert saved == [0]


def test_a_signal_to_one_process_is_one_to_all(tmp_path):
    def work() -> int:
        interrupt = make(tmp_path, start_processes("cpu"))
        interrupt.wish = 143 * interrupt.processes.rank
        return int(interrupt.agreed() != 143)

    assert on_ranks(2, work) == [0, 0]
