"""config.json says what was done, not what was asked for."""

import argparse
import logging

import pytest
import torch

from utils.run.folder import write_json
from utils.training.config import (
    check_repeated,
    check_resumed,
    describe_optimizations,
    describe_run,
    describe_training,
)

HEAD = {
    "script": "s", "version": "1", "doc": "d", "device": torch.device("cpu"),
    "processes": argparse.Namespace(world_size=1),
}  # fmt: skip
RECIPE = {"patience": 0, "amp": False, "compile": False}
PART = {
    "dataset": {"fingerprint": "abc"}, "split": {"train": ["1"], "val": ["2"]}, "world_size": 1,
    "num_threads": 4, "device": "cuda:0", "model": {"sha256": "old"},
}  # fmt: skip
SAME = "data, split, processes, threads, device, first weights: the same as of --config"


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
    args.batch_size = 4
    run = argparse.Namespace(args=args, processes=argparse.Namespace(world_size=3))
    found = describe_training(run, torch.nn.L1Loss(), optimizer, both)
    assert found["scheduler_params"]["warmup_epochs"] == 2 and found["effective_batch_size"] == 12
    assert found["scheduler_params"]["T_max"] == 3 and found["optimizer_params"]["lr"] == 0.1
    for norm in (0.0, 1.0):
        args.max_grad_norm = norm
        assert describe_optimizations(args, both)["gradient_clipping"] is (norm > 0)


def test_the_contents_of_a_class_map_are_recorded(tmp_path):
    write_json(tmp_path / "map.json", {"playing cards": "sitting together"})
    run = argparse.Namespace(**HEAD)
    for file, recorded in (str(tmp_path / "map.json"), {"playing cards": "sitting together"}), (None, None):
        run.args = argparse.Namespace(seed=1, class_map=file)
        assert describe_run(run)["class_map"] == recorded


def test_a_config_of_flags_alone_names_no_data_that_could_differ(tmp_path, caplog):
    write_json(tmp_path / "flags.json", {"script_name": "train_mae.py", "args": {}})
    check_repeated(tmp_path / "flags.json", PART)
    assert not caplog.records


@pytest.mark.parametrize(
    ("part", "level", "message"),
    [
        (PART, logging.INFO, SAME),
        (PART | {"device": "cuda:1"}, logging.INFO, SAME),
        (PART | {"device": "cpu"}, logging.WARNING, "not the device of --config"),
        (PART | {"world_size": 2, "num_threads": 1}, logging.WARNING, "not the processes and threads of"),
        (PART | {"dataset": {"fingerprint": "d"}}, logging.WARNING, "not the data of"),
        ({"model": {"sha256": "old"}}, logging.INFO, "first weights: the same as of --config"),
        ({"model": {"sha256": "new"}}, logging.WARNING, "not the first weights of --config"),
    ],
)
def test_all_that_decides_the_numbers_is_compared_with_the_run_of_the_config(
    tmp_path, caplog, part, level, message
):
    caplog.set_level("INFO", "run")
    write_json(tmp_path / "split.json", PART["split"])
    write_json(tmp_path / "config.json", {key: value for key, value in PART.items() if key != "split"})
    check_repeated(tmp_path / "config.json", part)
    (record,) = caplog.records
    assert record.levelno == level and record.getMessage().startswith(message)


def test_a_resumed_run_says_that_its_device_and_threads_changed(tmp_path, caplog):
    caplog.set_level("INFO", "run")
    split = PART["split"]
    write_json(tmp_path / "split.json", split)
    recorded = PART | {"num_threads": 99, "training": {}, "optimizations": {}, "args": {"batch_size": 4}}
    write_json(tmp_path / "config.json", recorded)
    run = argparse.Namespace(**HEAD, args=argparse.Namespace(resume=str(tmp_path), batch_size=4, seed=1))
    check_resumed(run, PART["dataset"], split)
    assert caplog.messages == [
        f"threads: 99 before, now {torch.get_num_threads()}: last bits may differ",
        "device: cuda before, now cpu: last bits may differ",
    ]
