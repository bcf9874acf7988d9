"""A step and an evaluation of each script on a GPU that is not there: torch's fake tensors have a device but
no values, and refuse, as a GPU does, to meet tensors of the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from benchmarks.scripts import Batches, prepare
from tests.tiny_runs import NAMES, flags_on_pixels
from utils.training import distributed

GPU = torch.device("cuda", 0)


@contextmanager
def fake_gpu() -> Iterator[None]:
    """Values that are read back, for which a GPU waits but does not fail, are 1; gradients need a GPU."""

    def clip(*_):
        return torch.ones((), device=GPU)

    stand_ins = {
        "tolist": lambda tensor: [1.0] * tensor.numel(), "item": lambda tensor: 1.0,
        "__bool__": lambda tensor: True, "__float__": lambda tensor: 1.0, "backward": lambda tensor: None,
    }  # fmt: skip
    with (
        FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv()),
        mock.patch.multiple(torch.Tensor, **stand_ins),
        mock.patch.object(torch, "bincount", lambda x, minlength: x.new_empty(minlength)),
        mock.patch.object(nn.utils, "clip_grad_norm_", clip),
    ):
        yield


def place(module: nn.Module) -> None:
    """As module.to(GPU), which fake tensors do not support."""
    for part in module.modules():
        for named in (part._parameters, part._buffers):
            for name, old in [item for item in named.items() if item[1] is not None]:
                new = torch.empty_strided(old.shape, old.stride(), dtype=old.dtype, device=GPU)
                named[name] = nn.Parameter(new, old.requires_grad) if name in part._parameters else new


@pytest.mark.parametrize("name", NAMES)
def test_no_tensor_of_a_step_is_left_on_the_cpu(name):
    training = prepare(name, flags_on_pixels(name))
    batches = Batches([next(iter(training.loader))], training.loader)
    with fake_gpu():
        *call, optimizer, scaler, interrupt, _ = training.call
        place(training.model), place(call[2])  # the criterion
        optimizer.step = optimizer.zero_grad = lambda *_, **__: None
        training.call = [*call, optimizer, scaler, interrupt, GPU]
        assert "loss" in training.epoch(batches, steps=1)


@pytest.mark.parametrize("name", NAMES)
def test_no_tensor_of_an_evaluation_is_left_on_the_cpu(name, monkeypatch):
    training = prepare(name, flags_on_pixels(name))
    loader = distributed.evaluation_loader(training.data.val, 8, distributed.start_processes("cpu"), 0)
    batches, rows = [next(iter(loader))], []
    monkeypatch.setattr(distributed, "gather_rows", rows.extend)
    with fake_gpu():
        place(training.model)
        try:
            training.script.evaluate(training.model, Batches(batches, loader), GPU)
        except TypeError:  # stage 2 adds columns to the rows, which rows.extend does not return
            assert name == "train_stage2"
    assert {tensor.device.type for row in rows for tensor in row.values()} == {"cpu"}  # for the report
