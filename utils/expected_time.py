"""How long a run will take, measured before it starts: nobody should find out after an hour that it takes a
week."""

import copy
import time
from collections.abc import Callable

import torch
from torch import nn

from utils.log import format_duration


def expected_time(
    model: nn.Module, compute_loss: Callable[[nn.Module], torch.Tensor], steps: int, epochs: int
) -> str:
    """'expected time: 12 min for 30 epochs of 24 steps, 0.9 s each'; a tenth is added for the evaluation.

    compute_loss is called with a copy of the model, so nothing of the run changes, and returns the loss of
    one batch; the first of two forward and backward passes warms up.
    """
    trial = copy.deepcopy(model).train()
    for _ in range(2):
        started = time.perf_counter()
        compute_loss(trial).backward()
        if next(trial.parameters()).is_cuda:
            torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    total = format_duration(1.1 * seconds * steps * epochs)
    return f"expected time: {total} for {epochs} epochs of {steps} steps, {seconds:.2g} s each"
