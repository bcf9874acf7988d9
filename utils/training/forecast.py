"""How long a recipe that nobody chose will take on a CPU, and a quicker one, before the first epoch."""

import argparse
import copy
import time

import torch
from torch import nn

from utils.run.log import LOG
from utils.training.interrupt import expected_time
from utils.training.run import Run

RECIPE = ("model", "image_size", "epochs", "batch_size", "max_batches")  # who types one of these has chosen
QUICK = "minutes on a CPU"  # what a script's docstring says behind its quick command
TIMED = 2  # images, once forward and back after one that warms up


def warn_slow(run: Run, model: nn.Module, samples: int, defaults: argparse.Namespace) -> None:
    """Log the expected time of the default recipe on a CPU; `model` takes images, a copy of it is timed."""
    args = run.args
    chosen = any(getattr(args, name) != getattr(defaults, name) for name in RECIPE)
    if chosen or args.resume or run.device.type != "cpu" or not run.processes.first:
        return
    model = copy.deepcopy(model).train()
    images = torch.zeros(TIMED, 3, *args.image_size, dtype=torch.uint8)
    for _ in range(2):
        began = time.monotonic()
        model(images).sum().backward()
    each = (time.monotonic() - began) / TIMED * args.batch_size
    steps = -(-samples // (args.batch_size * run.processes.world_size))
    quick = next(line for line in run.doc.splitlines() if line.endswith(QUICK)).removesuffix(QUICK).strip()
    LOG.warning(
        f"{expected_time(each, steps, args.epochs)}: this is the default on a CPU; minutes take: {quick}"
    )
