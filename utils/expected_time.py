"""How long a run will take, measured before it starts: nobody should find out after an hour that it takes a week."""

import copy
import time
from collections.abc import Callable

import torch
from torch import nn


def measure_step_seconds(model: nn.Module, compute_loss: Callable[[nn.Module], torch.Tensor]) -> float:
    """Seconds of one forward and backward pass. A copy of the model does it, so nothing of the run changes.

    compute_loss: called with the copy, returns the loss of one batch. The first of two passes warms up.
    """
    trial = copy.deepcopy(model).train()
    on_gpu = next(trial.parameters()).is_cuda
    for _ in range(2):
        started = time.perf_counter()
        compute_loss(trial).backward()
        if on_gpu:
            torch.cuda.synchronize()
    return time.perf_counter() - started


def format_duration(seconds: float) -> str:
    """'50 s', '12 min', '3.4 h' or '2.1 days'."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (2 * 86400, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.{1 if unit == 'h' else 0}f} {unit}"
    return f"{seconds / 86400:.1f} days"
