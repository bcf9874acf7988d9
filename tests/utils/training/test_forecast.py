"""The default recipe on a CPU is announced with its time and a quicker command; a typed one is not."""

import argparse
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import train_ddp
import train_mae
from utils.training.forecast import RECIPE, warn_slow


class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images):
        return self.norm(images.float()).mean(dim=(1, 2, 3))


@pytest.mark.parametrize("script", [train_mae, train_ddp])
def test_the_default_is_announced_and_a_typed_recipe_is_not(script, caplog):
    defaults, model = script.parse_args([]), Slow()

    def announced(device="cpu", **typed):
        caplog.clear()
        args = argparse.Namespace(**vars(defaults) | typed)
        run = SimpleNamespace(
            args=args, device=torch.device(device), doc=script.__doc__,
            processes=SimpleNamespace(first=True, world_size=1),
        )  # fmt: skip
        warn_slow(run, model, 100, defaults)
        return caplog.text

    text = announced()
    assert "for 500 epochs of 4 steps" in text
    command = text.split("minutes take: ")[1].split()
    assert command[:2] == ["python", script.SCRIPT]
    quick = vars(script.parse_args(command[2:]))
    assert not announced(**{name: quick[name] for name in RECIPE}) and not announced(epochs=3)
    assert not announced(resume="RUN") and not announced("meta")
    assert torch.equal(model.norm.running_var, torch.ones(3))  # a copy was timed
