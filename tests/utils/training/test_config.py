"""config.json says what was done, not what was asked for."""

import argparse

import pytest
import torch

from utils.run.folder import write_json
from utils.training.config import check_repeated, describe_optimizations, describe_run

RECIPE = {"patience": 0, "amp": False, "compile": False}


@pytest.mark.parametrize("flag", ["freeze_backbone", "freeze_encoder"])
def test_a_frozen_encoder_is_recorded_by_either_name(flag):
    for frozen in (False, True):
        found = describe_optimizations(argparse.Namespace(**RECIPE, **{flag: frozen}), None)
        assert found["frozen_backbone"] is frozen
    assert describe_optimizations(argparse.Namespace(**RECIPE), None)["frozen_backbone"] is False


def test_a_warm_up_is_recorded_where_the_rate_rises():
    """One epoch of warm-up has the full rate, as none at all has."""
    schedulers, args = torch.optim.lr_scheduler, argparse.Namespace(**RECIPE, warmup_epochs=1)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    fall = schedulers.CosineAnnealingLR(optimizer, 3)
    assert describe_optimizations(args, fall)["warmup"] is False
    rise = schedulers.LinearLR(optimizer, 1 / 2, total_iters=1)
    both = schedulers.SequentialLR(optimizer, [rise, fall], milestones=[1])
    assert describe_optimizations(args, both)["warmup"] is True


def test_the_contents_of_a_class_map_are_recorded(tmp_path):
    write_json(tmp_path / "map.json", {"playing cards": "sitting together"})
    head = {"script": "s", "version": "1", "doc": "d", "device": torch.device("cpu")}
    run = argparse.Namespace(**head, processes=argparse.Namespace(world_size=1))
    for file, recorded in (str(tmp_path / "map.json"), {"playing cards": "sitting together"}), (None, None):
        run.args = argparse.Namespace(seed=1, class_map=file)
        assert describe_run(run)["class_map"] == recorded


def test_a_config_of_flags_alone_names_no_data_that_could_differ(tmp_path, caplog):
    write_json(tmp_path / "flags.json", {"script_name": "train_mae.py", "args": {}})
    run = argparse.Namespace(args=argparse.Namespace(config=str(tmp_path / "flags.json")))
    check_repeated(run, {"fingerprint": "abc"}, {"train": ["1"], "val": ["2"], "test": ["3"]})
    assert not caplog.records
