"""config.json says what was done, not what was asked for."""

import argparse
import logging
import subprocess

import pytest
import torch
from torch import nn

from models.encoders import build_encoder, freeze
from models.losses import FocalLoss
from tests.faults.children import on_ranks
from utils.run.errors import CommandError
from utils.run.folder import write_json
from utils.tasks import recipe_of
from utils.training import config
from utils.training.config import (
    check_ranks,
    check_repeated,
    check_resumed,
    describe_git,
    describe_model,
    describe_optimizations,
    describe_run,
    describe_training,
)
from utils.training.distributed import start_processes

HEAD = {
    "script": "s", "version": "1", "doc": "d", "device": torch.device("cpu"),
    "processes": argparse.Namespace(world_size=1),
}  # fmt: skip
MODEL = {"frozen_encoder": False}
RECIPE = {"patience": 0, "amp": False, "compile": False}
PART = {
    "dataset": {"fingerprint": "abc"}, "split": {"train": ["1"], "val": ["2"]}, "world_size": 1,
    "num_threads": 4, "device": "cuda:0", "pytorch_version": "2.9", "model": {"sha256": "old"},
}  # fmt: skip
SAME = "data, split, processes, threads, device, PyTorch, first weights: the same as of --config"


def test_a_frozen_encoder_is_recorded_by_flag_or_as_the_code_froze_it():
    """Without a flag as well: a line in build_model freezes just as much."""
    encoder, args = build_encoder("cnn"), argparse.Namespace(**RECIPE)
    model, asked = nn.Sequential(encoder), argparse.Namespace(**RECIPE, freeze_backbone=True)
    trained = describe_model(model, "t", {}, 1)
    freeze(encoder)
    frozen = describe_model(model, "t", {}, 1)
    assert [found["trainable_parameters"] for found in (trained, frozen)] == [trained["total_parameters"], 0]
    recorded = [
        describe_optimizations(*who, None) for who in ((args, trained), (args, frozen), (asked, trained))
    ]
    assert [found["frozen_backbone"] for found in recorded] == [False, True, True]


def test_a_warm_up_is_recorded_where_the_rate_rises():
    """One epoch of warm-up has the full rate, as none at all has."""
    schedulers, args = torch.optim.lr_scheduler, argparse.Namespace(**RECIPE, warmup_epochs=1)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    fall = schedulers.CosineAnnealingLR(optimizer, 3)
    assert describe_optimizations(args, MODEL, fall)["warmup"] is False
    rise = schedulers.LinearLR(optimizer, 1 / 2, total_iters=1)
    both = schedulers.SequentialLR(optimizer, [rise, fall], milestones=[1])
    assert describe_optimizations(args, MODEL, both)["warmup"] is True
    args.batch_size = 4
    run = argparse.Namespace(args=args, processes=argparse.Namespace(world_size=3))
    found = describe_training(run, torch.nn.L1Loss(), optimizer, both)
    assert found["scheduler_params"]["warmup_epochs"] == 2 and found["effective_batch_size"] == 12
    assert found["scheduler_params"]["T_max"] == 3 and found["optimizer_params"]["lr"] == 0.1
    for value in (0.0, 1.0):
        args.max_grad_norm = args.ema_decay = value
        found = describe_optimizations(args, MODEL, both)
        assert found["gradient_clipping"] is found["ema"] is (value > 0)
    one_cycle = schedulers.OneCycleLR(optimizer, 0.1, total_steps=4)
    args.scheduler = "cosine"  # the flag, which the code need not follow
    found = [describe_optimizations(args, MODEL, s)["cosine_annealing"] for s in (fall, both, one_cycle)]
    assert found == [True, True, False]


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 3.0])])
def test_any_loss_is_recorded_with_its_settings_and_weights(weights):
    run = argparse.Namespace(args=argparse.Namespace(batch_size=1), processes=HEAD["processes"])
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.8)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    found = describe_training(run, FocalLoss(weights, gamma=1.5), optimizer, scheduler)
    assert found["loss_function"] == "FocalLoss" and found["loss_params"]["gamma"] == 1.5
    assert found["loss_weights"] == ({} if weights is None else {"weight": [1.0, 3.0]})
    assert recipe_of({"training": found})["optimizer_params.momentum"] == 0.8
    found = describe_training(run, nn.SmoothL1Loss(reduction="none", beta=2.0), optimizer, scheduler)
    assert found["loss_params"]["beta"] == 2.0 and found["loss_weights"] == {}


def test_the_contents_of_a_class_map_are_recorded(tmp_path):
    write_json(tmp_path / "map.json", {"playing cards": "sitting together"})
    run = argparse.Namespace(**HEAD)
    for file, recorded in (str(tmp_path / "map.json"), {"playing cards": "sitting together"}), (None, None):
        run.args = argparse.Namespace(seed=1, class_map=file)
        assert describe_run(run)["class_map"] == recorded


def test_the_commit_and_changes_since_are_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "REPO_ROOT", tmp_path)
    assert describe_git() == {"commit": None, "dirty": None}
    (tmp_path / "train.py").write_text("1")
    for command in ("init -q", "add .", "-c user.name=a -c user.email=b commit -q -m c"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    committed = describe_git()
    assert len(committed["commit"]) == 40 and committed["dirty"] is False
    (tmp_path / "train.py").write_text("2")
    assert describe_git() == committed | {"dirty": True}


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
        (PART | {"pytorch_version": "2.8"}, logging.WARNING, "not the PyTorch of"),
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


def test_ranks_that_differ_are_told_what_differs():
    def work() -> int:
        processes = start_processes("cpu")
        args = argparse.Namespace(batch_size=4, seed=processes.rank)
        run = argparse.Namespace(args=args, processes=processes)
        with pytest.raises(CommandError, match="the ranks differ .*\n +--seed\nrank 0 +0\nrank 1 +1$"):
            check_ranks(run, {"fingerprint": "abc", "train_samples": 9}, PART["split"])
        return 0

    assert on_ranks(2, work) == [0, 0]
