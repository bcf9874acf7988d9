"""One torch thread (results and times do not depend on the machine), and the real data where it is
present."""

import functools
import gc
import os
import shutil
import signal
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn import ensemble

from datasets import cache
from tests.folders import session_folder
from utils.run.log import LOG, stop_log
from utils.run.script import ending_signals

torch.set_num_threads(1)
FSYNC = os.fsync  # as it is, see _tiny_runs_wait_for_nothing
REAL = Path(__file__).resolve().parent.parent.parent / "shared" / "real"


def pytest_collection_finish() -> None:
    """What the imports made stays: the garbage collector need not look through it again in every test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real data beside the checkout; tests that need it skip where it is absent."""
    if not REAL.is_dir():
        pytest.skip(f"no real data at {REAL}")
    return REAL


@pytest.fixture(autouse=True)
def _signal_handlers():
    """A run that a test breaks off leaves its handlers behind: put back those that pytest had. Started in the
    background it ignores SIGINT, under nohup SIGHUP, and so would the runs."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    handled = (signal.SIGINT, signal.SIGUSR1, *ending_signals())
    kept, hook = {number: signal.getsignal(number) for number in handled}, sys.unraisablehook
    yield
    sys.unraisablehook = hook
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _log_of_one_test(monkeypatch):
    """pytest sees what is logged, also once a run has begun; no run's file gets another's lines."""
    monkeypatch.setattr(LOG, "propagate", True)
    yield
    stop_log()


@pytest.fixture(autouse=True)
def _empty_figures(request, monkeypatch):
    """Figures are not rendered but in tests marked `figures`: they would be half the time of a tiny run."""
    if not request.node.get_closest_marker("figures"):
        monkeypatch.setattr(FigureCanvasAgg, "draw", lambda canvas: None)
        monkeypatch.setattr(Figure, "savefig", lambda *values, **options: None)


@pytest.fixture(autouse=True, scope="session")
def _folder_of_the_session():
    """Decoded images and made samples go to a folder of their own, not into the checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "CACHE_DIR", session_folder() / "cache")
        yield
    shutil.rmtree(session_folder(), ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def _tiny_runs_wait_for_nothing():
    """What would be most of a tiny run's time: boosted trees of 255 weighted bins, two processes for a few
    images, and a disk that is asked to write at once. Tests of these things put them back."""
    with pytest.MonkeyPatch.context() as patch:
        coarse = functools.partial(ensemble.HistGradientBoostingClassifier, max_bins=32)
        patch.setattr(ensemble, "HistGradientBoostingClassifier", coarse)
        patch.setattr(cache, "FEW_SOURCES", 1000)
        patch.setattr(os, "fsync", lambda file: None)
        yield
