"""A stopped and resumed run is the uninterrupted run, bit for bit, in all five scripts; and the comparison
would notice anything that last.pth forgot."""

import argparse
import json
import shutil
import signal
import time
from pathlib import Path
from unittest import mock

import pytest
import torch

import train_mae
from datasets.jrdb.labels import LABEL_FOLDER
from prediction.trained import open_trained
from tests.faults.children import held_by_another, in_a_child
from tests.faults.stopped_runs import (
    AGES,
    EACH,
    SCRIPTS,
    argv,
    copied_data,
    exit_code,
    resume,
    signal_at,
    steps_per_epoch,
    stopped,
    train,
    whole_run,
)
from tests.tiny_runs import assert_same_run
from utils.run import arguments
from utils.run.errors import CommandError
from utils.run.folder import read_json, write_json
from utils.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from utils.training.learning import LearningCheck

SCRIPT = "train_stage1"
RESUMED = "resumed after epoch 1"


@pytest.mark.parametrize("script", EACH)
def test_sigterm_in_the_middle_of_an_epoch(script, tmp_path, monkeypatch):
    """In the second epoch: optimizer, scheduler and averaged weights are no longer those of the start."""
    whole = whole_run(script)
    steps = steps_per_epoch(whole)
    run = stopped(monkeypatch, script, tmp_path, steps + 1 + steps // 2, signal.SIGTERM)
    state = load_checkpoint(run / "last.pth")
    assert (state["epoch"], state["step"]) == (1, steps // 2)
    resume(script, run)
    assert_same_run(whole, run)
    assert f"{RESUMED} and {steps // 2} steps" in (run / "train.log").read_text()


@pytest.mark.long
@pytest.mark.filterwarnings("error:Detected call of")  # a scheduler before its optimizer
@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("place", ["before the first step", "first", "last but one", "last", "epoch end"])
def test_sigterm_at_the_edges_of_an_epoch(script, place, tmp_path, monkeypatch):
    whole = whole_run(script)
    steps = steps_per_epoch(whole)
    look = {"before the first step": 0, "first": 1, "last but one": steps - 1, "last": steps}
    run = stopped(monkeypatch, script, tmp_path, look.get(place, steps + 1), signal.SIGTERM)
    resume(script, run)
    assert_same_run(whole, run)


def test_a_resumed_run_stops_as_early(tmp_path, monkeypatch):
    """The best epoch and what it is compared with are those of before the stop."""
    flags = ["--lr", "1e-9", "--epochs", "6", "--patience", "2"]
    whole = train("train_mae", tmp_path / "whole", *flags)
    look = 2 * (steps_per_epoch(whole) + 1) + 1  # in the third epoch
    run = stopped(monkeypatch, "train_mae", tmp_path, look, signal.SIGTERM, *flags)
    resume("train_mae", run)
    assert len(read_json(whole / "history.json")) < 6
    assert_same_run(whole, run)


@pytest.mark.long
@pytest.mark.parametrize("script", SCRIPTS)
def test_stopped_three_times_with_other_numbers_of_workers(script, tmp_path, monkeypatch):
    """0 workers, then 2, then 0 again; twice in one epoch and once in the next."""
    whole = whole_run(script)
    steps = steps_per_epoch(whole)
    run = stopped(monkeypatch, script, tmp_path, steps // 2, signal.SIGTERM)
    for look, workers in ((1, "2"), (steps, "0")):
        with monkeypatch.context() as patch:
            signal_at(patch, (look, signal.SIGTERM))
            with pytest.raises(SystemExit):
                resume(script, run, "--num_workers", workers)
    resume(script, run, "--num_workers", "2")
    assert_same_run(whole, run)


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """A run of train_mae whose first epoch is the best one, so that best matters in the third."""
    flags = ["--lr", "1e-2", "--patience", "9", "--epochs", "3"]
    return flags, train("train_mae", tmp_path_factory.mktemp("still"), *flags)


@pytest.fixture(scope="module")
def half(still, tmp_path_factory):
    """The same run stopped in its third epoch."""
    flags, whole = still
    steps = steps_per_epoch(whole)
    with pytest.MonkeyPatch.context() as patch:
        look = 2 * (steps + 1) + steps // 2
        return stopped(patch, "train_mae", tmp_path_factory.mktemp("half"), look, signal.SIGTERM, *flags)


@pytest.fixture(scope="module")
def fresh(still, tmp_path_factory):
    """What last.pth of that run holds before the first step."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("fresh")
        return load_checkpoint(stopped(patch, "train_mae", folder, 0, signal.SIGTERM, *still[0]) / "last.pth")


FORGOTTEN = ["model", "trained", "optimizer", "scheduler", "step", "totals", "best", "history"]


@pytest.mark.parametrize("item", ["nothing", *FORGOTTEN])
def test_what_last_pth_forgets_is_noticed(item, still, half, fresh, tmp_path):
    """Each item in turn is put back to what a fresh run begins with: the resumed run must be another one."""
    _, whole = still
    assert load_checkpoint(whole / "last.pth")["best"]["model"]["epoch"] == 1, (
        "a later epoch was better: nothing is tested"
    )
    run = shutil.copytree(half, tmp_path / half.name)
    state = load_checkpoint(run / "last.pth")
    if item != "nothing":
        save_checkpoint(run / "last.pth", state | {item: fresh[item]})
    resume("train_mae", run)
    if item == "nothing":
        assert_same_run(whole, run)
    else:
        with pytest.raises(AssertionError):
            assert_same_run(whole, run)


@pytest.mark.parametrize("item", [*FORGOTTEN, "scaler"])
def test_a_last_pth_without_an_item_is_an_error(item, half, tmp_path):
    run = shutil.copytree(half, tmp_path / half.name)
    state = load_checkpoint(run / "last.pth")
    del state[item]
    save_checkpoint(run / "last.pth", state)
    with pytest.raises(KeyError, match=item):
        resume("train_mae", run)


def test_a_config_that_was_edited_is_refused(half, tmp_path):
    run = Path(shutil.copytree(half, tmp_path / half.name))
    config = read_json(run / "config.json")
    edited = config | {"args": config["args"] | {"dropout": 0.9}}
    write_json(run / "config.json", edited)
    said = "is not of the run that config.json .*\n  --dropout: trained with .*, now 0.9\n"
    with pytest.raises(CommandError, match=said):
        resume("train_mae", run)
    write_json(run / "config.json", {key: value for key, value in config.items() if key != "dataset"})
    with pytest.raises(CommandError, match="config.json has no dataset, which every run writes"):
        resume("train_mae", run)


RECIPES = {
    "loss_function: recorded L1Loss, now MSELoss": lambda loss, adamw, _: (
        torch.nn.MSELoss(reduction="none"), adamw, _,
    ),
    "optimizer: recorded AdamW, now SGD": lambda loss, adamw, schedule: (
        loss, torch.optim.SGD(adamw.param_groups[0]["params"], lr=0.01, momentum=0.9), schedule,
    ),
    "optimizer_params.betas: recorded .*0.999., now .*0.5.": lambda loss, adamw, schedule: (
        loss, torch.optim.AdamW(adamw.param_groups[0]["params"], lr=0.01, betas=(0.9, 0.5)), schedule,
    ),
    "lr_scheduler: recorded .*, now ExponentialLR": lambda loss, adamw, _: (
        loss, adamw, torch.optim.lr_scheduler.ExponentialLR(adamw, 0.9),
    ),
}  # fmt: skip


@pytest.mark.parametrize("said", RECIPES)
def test_a_recipe_that_was_changed_in_the_code_is_refused(said, half, tmp_path, monkeypatch):
    """Half of the run would follow one recipe and half another, under the name of the first."""
    run, build = Path(shutil.copytree(half, tmp_path / half.name)), train_mae.build_recipe
    before = load_checkpoint(run / "last.pth")["history"]
    monkeypatch.setattr(train_mae, "build_recipe", lambda *given: RECIPES[said](*build(*given)))
    with pytest.raises(CommandError, match=f"the code has changed since .*\n  {said}\n"):
        resume("train_mae", run)
    assert load_checkpoint(run / "last.pth")["history"] == before


def test_a_model_that_was_changed_in_the_code_is_refused_and_other_code_is_said(half, tmp_path, monkeypatch):
    run, build = Path(shutil.copytree(half, tmp_path / half.name)), train_mae.build_model

    def with_another_layer(args):
        model, weights = build(args)
        model.head.append(torch.nn.Linear(1, 1))
        return model, weights

    config = read_json(run / "config.json")
    write_json(run / "config.json", config | {"git": {"commit": "abc", "dirty": True}})
    monkeypatch.setattr(train_mae, "build_model", with_another_layer)
    with pytest.raises(CommandError, match="last.pth: its weights do not fit the model .*\nuse it with the"):
        resume("train_mae", run)
    assert (
        "warning: the run began with the code {'commit': 'abc', 'dirty': True}, as"
        in (run / "train.log").read_text()
    )


def parser_of(script, monkeypatch):
    """The parser that a script builds."""
    parse, parsers = arguments.parse_arguments, []
    with monkeypatch.context() as patch:
        patch.setattr(arguments, "parse_arguments", lambda *given: parsers.append(given[0]) or parse(*given))
        SCRIPTS[script].parse_args([])
    return parsers[0]


def another(action, recorded) -> list[str]:
    """A valid value of a flag that is not the recorded one, as typed; nothing where there is only one."""
    flag = action.option_strings[0]
    if isinstance(recorded, bool):
        return ["--no-" + flag[2:] if recorded else flag]
    if action.choices:
        return [flag, next(str(c) for c in action.choices if c != recorded and [c] != recorded)]
    if isinstance(recorded, int):
        return [flag, str(recorded + 1)]
    if isinstance(recorded, float):
        return [flag, "0.625"]
    if isinstance(recorded, list) and recorded and isinstance(recorded[0], int | float):
        return [flag, *(str(value + 1) for value in recorded)]
    if action.nargs == 2:
        return [flag, "7", "8"]
    return [flag, "1/7" if action.dest == "fold" else "7"]


@pytest.mark.parametrize("script", EACH)
def test_every_flag_that_makes_another_run_is_refused_with_both_values(script, monkeypatch, capsys):
    run, module = whole_run(script), SCRIPTS[script]
    recorded = read_json(run / "config.json")["args"]
    refused = 0
    for action in parser_of(script, monkeypatch)._actions:
        name = action.dest
        if name in ("help", "help_all", argparse.SUPPRESS, *arguments.NOT_RECORDED):
            continue
        typed = another(action, recorded[name])
        if name in arguments.MAY_CHANGE_ON_RESUME - {"epochs", "device"} | arguments.MAY_MOVE:
            assert getattr(module.parse_args(["--resume", str(run), *typed]), name) != recorded[name]
            continue
        if name == "device" or (name == "epochs" and recorded.get("scheduler") != "cosine"):
            module.parse_args(["--resume", str(run), *typed])
            continue
        with pytest.raises(SystemExit) as left:
            module.parse_args(["--resume", str(run), *typed])
        said = capsys.readouterr().err
        assert left.value.code == 2
        assert f"--{name}: recorded {recorded[name]}, typed " in said, said
        assert "start a new run with --config" in said
        refused += 1
    print(f"{script}: {refused} flags refused")
    assert refused > 25


def test_a_run_has_one_owner(tmp_path, monkeypatch, capsys):
    run = stopped(monkeypatch, SCRIPT, tmp_path, 3, signal.SIGTERM)
    before = (run / "train.log").read_text()
    live = {"state": "training", "pid": 4711, "host": "node3", "time": time.time() - 4}
    with held_by_another(run / ".lock"):
        write_json(run / "status.json", read_json(run / "status.json") | live)
        assert exit_code(SCRIPT, ["--resume", str(run)]) == 2
        said = capsys.readouterr().err
        assert "is being trained by pid 4711 on node3, last sign of life" in said and "--force" in said
        assert read_json(run / "status.json")["pid"] == 4711
        assert (run / "train.log").read_text() == before
        with monkeypatch.context() as patch:
            signal_at(patch, (1, signal.SIGTERM))
            assert exit_code(SCRIPT, ["--resume", str(run), "--force"]) == 143
    resume(SCRIPT, run)  # its owner is gone
    assert_same_run(whole_run(SCRIPT), run)


def test_a_run_is_owned_from_its_start_to_its_end(tmp_path, monkeypatch):
    def fork_that_resumes(run: Path) -> int:
        return in_a_child(lambda: exit_code(SCRIPT, ["--resume", str(run)]))

    codes, save = [], Checkpoint.save_epoch

    def save_and_try(self, *values, **options):
        save(self, *values, **options)
        if len(self.history) == 2:
            codes.append(fork_that_resumes(self.run.folder))

    monkeypatch.setattr(Checkpoint, "save_epoch", save_and_try)
    run = train(SCRIPT, tmp_path)
    assert codes == [2]
    assert_same_run(whole_run(SCRIPT), run)
    assert fork_that_resumes(run) == 0  # finished: nothing to do


def test_auto_goes_on_with_the_newest_unfinished_run_of_the_same_flags(tmp_path, monkeypatch, capsys):
    def begin(*more: str) -> int:
        with monkeypatch.context() as patch:
            signal_at(patch, (0, signal.SIGTERM))
            return exit_code(SCRIPT, [*flags, "--resume", "auto", *more])

    run, flags = stopped(monkeypatch, SCRIPT, tmp_path, 3, signal.SIGTERM), argv(SCRIPT, tmp_path)
    assert begin("--lr", "1e-4") == 143  # other flags: a new run, itself unfinished now
    (second,) = set(tmp_path.iterdir()) - {run}
    with held_by_another(run / ".lock"):
        assert begin() == 143
    (third,) = set(tmp_path.iterdir()) - {run, second}  # the first has an owner
    shutil.rmtree(third)
    assert exit_code(SCRIPT, [*flags, "--output_dir", f"{tmp_path}/", "--resume", "auto"]) == 0
    assert set(tmp_path.iterdir()) == {run, second}
    assert_same_run(whole_run(SCRIPT), run)
    assert begin() == 143
    assert len(list(tmp_path.iterdir())) == 3  # the first is finished: a new one


@pytest.mark.parametrize("late", [False, True])
def test_a_resume_that_fails_changes_nothing(tmp_path, monkeypatch, capsys, late):
    """Not how the run ended, nor anything else; the log says why it did not go on."""
    run = Path(shutil.copytree(whole_run(SCRIPT), tmp_path / "stage1_experiment_20261122_010000"))
    refused = f"--resume {run} cannot go on: it would not be the same run"
    if late:
        check = mock.Mock(side_effect=CommandError(refused))
        monkeypatch.setattr(LearningCheck, "before_training", check)
    else:
        write_json(run / "split.json", {})  # for the scripts it is another split

    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in run.iterdir() if path.name != "train.log"}

    before = files()
    assert exit_code(SCRIPT, ["--resume", str(run), "--epochs", "9"]) == 2
    assert files() == before and read_json(run / "status.json")["state"] == "finished"
    assert (run / "train.log").read_text().endswith(f"not resumed, the run is as it was: {refused}\n")
    assert f"error: {refused}" in capsys.readouterr().err


def test_a_finished_run_that_goes_on_has_no_verdict_until_it_ends(tmp_path, monkeypatch):
    run = train(SCRIPT, tmp_path, "--scheduler", "none", "--epochs", "1")
    assert (run / "results.json").is_file()
    with monkeypatch.context() as patch:
        signal_at(patch, (steps_per_epoch(run) + 2, signal.SIGTERM))
        with pytest.raises(SystemExit):
            resume(SCRIPT, run, "--epochs", "3")
    assert len(read_json(run / "history.json")) == 2
    assert not (run / "results.json").exists() and not (run / "evaluation_report.txt").exists()


@pytest.mark.parametrize("damaged", ["", "{}", '{"epochs_run": 3'])
def test_a_damaged_results_json_is_written_anew(damaged, tmp_path):
    run = Path(shutil.copytree(whole_run(SCRIPT), tmp_path / "stage1_experiment_20261122_010000"))
    (run / "results.json").write_text(damaged)
    resume(SCRIPT, run)
    assert_same_run(whole_run(SCRIPT), run)


def change_data(script, root) -> None:
    """Another size of an image, another box."""
    if script in (*AGES, "train_anomaly_with_labels"):
        image = sorted(
            (root / "TA/Healthy/Images").glob("*.png") if script in AGES else root.rglob("RGB*/*.png")
        )[0]
        image.write_bytes(image.read_bytes() + b"\0")
    else:
        path = sorted((root / LABEL_FOLDER).iterdir())[0]
        content = json.loads(path.read_text())
        next(iter(content["labels"].values()))[0]["box"][3] += 1
        path.write_text(json.dumps(content))


@pytest.mark.parametrize("script", EACH)
def test_other_data_is_refused(script, tmp_path, monkeypatch):
    root, flags = copied_data(script, tmp_path / "data")
    run = stopped(monkeypatch, script, tmp_path / "runs", 2, signal.SIGTERM, *flags)
    change_data(script, root)
    with pytest.raises(CommandError, match="fingerprint of the data: recorded .*, now ") as refused:
        resume(script, run)
    assert len(str(refused.value).splitlines()) <= 5


def test_data_that_moved_is_passed_again(tmp_path, monkeypatch):
    root, flags = copied_data(SCRIPT, tmp_path / "data")
    run = stopped(monkeypatch, SCRIPT, tmp_path / "runs", 2, signal.SIGTERM, *flags)
    moved = root.rename(tmp_path / "moved")
    (run / "status.json").write_text("")  # as after a power cut
    resume(SCRIPT, run, "--data_path", str(moved))
    assert_same_run(whole_run(SCRIPT), run)
    recorded = read_json(run / "config.json")
    assert recorded["args"]["data_path"] == recorded["dataset"]["data_path"] == str(moved)
    assert open_trained(run, torch.device("cpu")).args.data_path == str(moved)


def test_files_that_shape_the_run_may_move_but_not_change(tmp_path, monkeypatch):
    files = {"split_method": tmp_path / "my.json", "class_map": tmp_path / "classes.json"}
    shutil.copy(whole_run(SCRIPT) / "split.json", files["split_method"])
    write_json(files["class_map"], {"walking together": "others"})
    flags = [word for name, path in files.items() for word in (f"--{name}", path)]
    run = stopped(monkeypatch, SCRIPT, tmp_path / "runs", 2, signal.SIGTERM, *flags)
    write_json(other := tmp_path / "other.json", {"walking together": "standing together"})
    files["class_map"].rename(moved := tmp_path / "moved.json")
    files["split_method"].unlink()
    own = ["--split_method", str(run / "split.json"), "--class_map"]
    with pytest.raises(CommandError, match="class_map .*other.json: other contents than in config.json"):
        resume(SCRIPT, run, *own, str(other))
    resume(SCRIPT, run, *own, str(moved))
    assert read_json(run / "config.json")["args"]["class_map"] == str(moved)


def test_a_run_that_was_copied_without_its_best_epoch_is_refused_before_training(tmp_path, monkeypatch):
    look = steps_per_epoch(whole_run(SCRIPT)) + 2
    run = stopped(monkeypatch, SCRIPT, tmp_path, look, signal.SIGTERM)
    (run / "best_f1.pth").unlink()
    with pytest.raises(CommandError, match="best_f1.pth is missing, which the end of the run needs\ncopy it"):
        resume(SCRIPT, run)
    assert load_checkpoint(run / "last.pth")["epoch"] == 1


def test_a_last_pth_of_a_run_on_other_data_is_refused(tmp_path, monkeypatch):
    root, flags = copied_data(SCRIPT, tmp_path / "data")
    change_data(SCRIPT, root)
    run = stopped(monkeypatch, SCRIPT, tmp_path / "runs", 2, signal.SIGTERM)
    other = stopped(monkeypatch, SCRIPT, tmp_path / "others", 2, signal.SIGTERM, *flags)
    shutil.copy(other / "last.pth", run)
    with pytest.raises(CommandError, match="last.pth is not of the run .*\n  trained on another fingerprint"):
        resume(SCRIPT, run)


@pytest.mark.parametrize("script", EACH)
def test_another_split_is_refused(script, tmp_path, monkeypatch):
    """Else what the run was trained on could become what it is judged on."""
    root, flags = copied_data(script, tmp_path / "data")
    run = stopped(monkeypatch, script, tmp_path / "runs", 2, signal.SIGTERM, *flags)
    (path,) = root.rglob("split.json")
    split = read_json(path)
    split["train"][0], split["val"][0] = split["val"][0], split["train"][0]
    write_json(path, split)
    with pytest.raises(CommandError, match="split: recorded in .*split.json, now another"):
        resume(script, run)
