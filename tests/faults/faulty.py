"""A training script with a planted fault, for tests that need real processes of their own.

    torchrun --nproc_per_node=2 tests/faults/faulty.py WHAT:RANK:LOOK train_stage1 [flags of the script]

The process of that rank does WHAT when the run looks for signals for the LOOK-th time (the first look is
before the first step) and writes the time into the file $FAULT_TIME. A job that torchrun starts again
runs without the fault.
"""

import importlib
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from utils.plotting import curves, figures
from utils.report import interaction
from utils.run.script import run_script
from utils.training import distributed
from utils.training.interrupt import Interrupt


def guess(train_inputs, train_labels, inputs, classes=2, **options):
    """One reference, which does not need to be fitted."""
    return {"guess": np.full((len(inputs), classes), 1 / classes)}


def raise_error() -> None:
    raise ValueError("a planted fault")


def stall() -> None:
    """Before the next step's forward pass: the other rank waits in its backward pass."""
    distributed.seed_everything = lambda *key: time.sleep(600)


FAULTS = {
    "stall": stall,
    "raise": raise_error,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "term_launcher": lambda: os.kill(os.getppid(), signal.SIGTERM),
}


def plant(what: str, wanted: int) -> None:
    """Do it at that look."""
    look, count = Interrupt.agreed, iter(range(10**6))

    def agreed(self: Interrupt) -> int:
        if next(count) == wanted:
            Path(os.environ["FAULT_TIME"]).write_text(str(time.time()))
            FAULTS[what]()
        return look(self)

    Interrupt.agreed = agreed


if __name__ == "__main__":
    what, rank, look = sys.argv[1].split(":")
    script = importlib.import_module(sys.argv[2])
    args = script.parse_args(sys.argv[3:])
    first_attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if first_attempt and rank == os.environ.get("RANK", "0"):
        plant(what, int(look))
    curves.save_figure = figures.save_figure = lambda *values, **options: None
    interaction.reference_scores = guess
    run_script(script.main, args)
