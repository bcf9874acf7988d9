"""--fold K/N: every group is tested exactly once, whatever the task, and nobody is trained on and judged."""

import importlib

import pytest

from datasets.jrdb.flags import FROM_STAGE1
from tests.tiny_runs import NAMES, flags_of, jrdb, private_cache, run_main, run_of
from utils.run.errors import CommandError, DataError

FOLDS = 4


@pytest.fixture(scope="module", autouse=True)
def _private_cache():
    with private_cache():
        yield


def parts_of(name, *flags):
    script = importlib.import_module(name)
    args = script.parse_args(list(map(str, [*flags_of(name), *flags])))
    if name == "train_stage2":  # which takes these from its stage 1 run
        stage1 = importlib.import_module("train_stage1").parse_args(["--features", "geometry"])
        vars(args).update({flag: vars(stage1)[flag] for flag in FROM_STAGE1})
    data = script.build_datasets(args)
    assert data.leakage_check
    return data.split, data.split_source


@pytest.mark.parametrize("name", NAMES)
def test_every_group_is_tested_exactly_once(name):
    splits = [parts_of(name, "--fold", f"{k}/{FOLDS}")[0] for k in range(1, FOLDS + 1)]
    groups = sorted(group for names in splits[0].values() for group in names)
    assert len(groups) == len(set(groups)) >= FOLDS
    assert sorted(group for split in splits for group in split["test"]) == groups
    for split, following in zip(splits, splits[1:] + splits[:1], strict=True):
        assert split["val"] == following["test"]
        assert sorted(sum(split.values(), [])) == groups
    sizes = [len(split["test"]) for split in splits]
    assert max(sizes) - min(sizes) <= 1


def test_a_fold_stands_above_the_split_file_of_the_data_and_follows_the_seed():
    split, source = parts_of("train_stage1", "--fold", "1/4")
    assert source == "--fold 1/4 of --seed 42"
    assert split == parts_of("train_stage1", "--fold", "01/4")[0]
    assert split != parts_of("train_stage1")[0] and split != parts_of("train_stage1", "--fold", "2/4")[0]
    assert split != parts_of("train_stage1", "--fold", "1/4", "--seed", 7)[0]


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("train_stage1", ["--split_method", "sorted70"]),
        ("train_anomaly_with_labels", ["--holdout_towns", "Town01", "--test_size", ".3"]),
        ("train_mae", ["--split_method", "mine.json", "--val_size", ".3"]),
    ],
)
def test_flags_that_split_otherwise_are_refused_in_one_message(name, flags, capsys):
    script = importlib.import_module(name)
    with pytest.raises(SystemExit):
        script.parse_args(["--fold", "1/5", *flags])
    said = capsys.readouterr().err
    assert all(flag in said for flag in flags if flag.startswith("--")) and "--fold 1/5" in said


@pytest.mark.parametrize("fold", ["0/5", "6/5", "1/2", "1", "a/b", "1/5/2", "-1/5"])
def test_what_is_no_fold(fold, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module("train_mae").parse_args([f"--fold={fold}"])
    assert "K/N" in capsys.readouterr().err


def test_more_folds_than_groups():
    with pytest.raises(DataError, match="12 groups make at most 12 folds"):
        parts_of("train_stage1", "--fold", "1/13")


def test_anomalies_are_no_fold_of_a_model_that_is_trained_on_pasted_things():
    with pytest.raises(CommandError, match="Leave --fold out"):
        parts_of("train_anomaly_with_labels", "--fold", "1/4", "--label", "pasted")


def test_stage_2_refuses_a_stage_1_that_was_trained_on_whom_it_judges(tmp_path):
    """Sequences of one name, and the same recordings under other names."""
    start = ["--data_path", jrdb(), "--stage1_checkpoint", run_of("train_stage1"), "--output_dir", tmp_path]
    with pytest.raises(CommandError, match="Leakage: stage 1 was trained on .*\n.*no --fold\n.*--fold"):
        run_main("train_stage2", *start, "--fold", "1/4", "--check_data")
    run_main("train_stage2", *start, "--check_data")
