"""What holds for the loops of all five scripts alike."""

import importlib

import pytest
import torch

from datasets.samples import ensure_sample
from tests.tiny_runs import EXCLUDE, NAMES, flags_of, history, run_main, run_of, train
from utils.run.folder import read_json
from utils.tasks import TASKS
from utils.training import interrupt
from utils.training.checkpoint import load_checkpoint

EACH = pytest.mark.parametrize("name", NAMES)


@EACH
def test_the_best_epoch_is_the_best_of_the_history(name):
    run, task = run_of(name), TASKS[f"{name}.py"]
    assert getattr(importlib.import_module(name), "SELECT_BY", task["best"]) == task["best"]
    values = [row[f"val_{task['best']}"] for row in history(run)]
    best = max(values) if task["metrics"][task["best"]].higher else min(values)
    kept = load_checkpoint(run / task["checkpoint"])["epoch"]
    assert read_json(run / "results.json")["best_epoch"] == kept == 1 + values.index(best)


@EACH
def test_what_is_judged_in_the_end_is_what_was_judged_in_the_best_epoch(name):
    """The averaged weights, if there are any, in every epoch too."""
    run = run_of(name)
    results = read_json(run / "results.json")
    config, rows = read_json(run / "config.json"), read_json(run / "history.json")
    balanced = config["training"].get("class_counts_after_balancing", {}).values()
    samples = sum(balanced) or config["dataset"]["train_samples"]
    assert {round(row["samples_per_second"] * row["seconds"]) for row in rows} == {samples}
    row, val = rows[results["best_epoch"] - 1], results["metrics"]["val"]
    shown = {key: value for key, value in val.items() if f"val_{key}" in row}
    assert len(shown) >= 4 and shown == pytest.approx({key: row[f"val_{key}"] for key in shown}, rel=1e-4)


@EACH
def test_of_equal_epochs_the_first_is_the_best_and_patience_counts_from_it(name, tmp_path, monkeypatch):
    script, first = importlib.import_module(name), []
    measure = script.measure

    def the_same(*values, **options):
        first.append(measure(*values, **options))
        return dict(first[0])

    steps, average = [], []  # of the averaged weights, where the script has them: counted through the run
    if follow := getattr(script, "follow", None):
        average = ["--ema_decay", 0.9]
        noted = lambda *models, step, **rest: follow(*models, step=steps.append(step) or step, **rest)  # noqa: E731
        monkeypatch.setattr(script, "follow", noted)
    monkeypatch.setattr(script, "measure", the_same)
    run = train(name, tmp_path, "--epochs", 4, "--patience", 2, "--max_batches", 1, *average)
    results = read_json(run / "results.json")
    assert (results["best_epoch"], results["epochs_run"]) == (1, 3)
    assert not average or (steps == [0, steps[1], 2 * steps[1]] and steps[1] > 0)


@EACH
def test_a_step_goes_down_the_mean_loss_of_its_batch(name, tmp_path, monkeypatch):
    """Not down their sum: no learning rate would fit two batch sizes. Its gradient is clipped as asked."""
    script, seen, limits = importlib.import_module(name), [], []
    check, clip = script.check_finite, torch.nn.utils.clip_grad_norm_

    def noted(loss, *rest):
        seen.append(loss.item())
        check(loss, *rest)

    monkeypatch.setattr(script, "check_finite", noted)
    noted_clip = lambda weights, most: limits.append(most) or clip(weights, most)  # noqa: E731
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", noted_clip)
    more = ["--location_weight", 0] if "anomaly" in name else []
    more += ["--max_grad_norm", 0.7] if name != "train_ddp" else []
    (row,) = history(train(name, tmp_path, "--epochs", 1, "--max_batches", 1, *more))
    assert seen == [pytest.approx(row["train_loss"], rel=1e-5)]
    assert limits[-1:] == [0.7 if name != "train_ddp" else float("inf")]


@EACH
def test_a_loader_can_pin_every_tensor_of_a_batch_for_cuda(name, tmp_path, monkeypatch):
    """torch pins a tensor by a copy with the same strides, which fails where elements share memory."""
    batches, steps = [], interrupt.Interrupt.steps

    def noted(self, loader, *rest):
        batches.append(loader.dataset.__getitems__([0, 1]))
        return steps(self, loader, *rest)

    flags_of(name)  # what stage 2 starts from is trained before
    monkeypatch.setattr(interrupt.Interrupt, "steps", noted)
    train(name, tmp_path, "--epochs", 1, "--max_batches", 1)
    for tensor in batches[0].values():
        torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor)


@pytest.mark.parametrize(("name", "kind"), [
    ("train_stage1", "jrdb"), ("train_mae", "ultrasound"), ("train_anomaly_with_labels", "anovox"),
])  # fmt: skip
def test_without_a_data_path_the_built_in_sample_is_used_and_named(name, kind, tmp_path, monkeypatch):
    made = []

    def tiny(kind, directory, *size):
        made.append((kind, directory))
        return ensure_sample(kind, tmp_path / "sample", size="tiny")

    monkeypatch.setattr(importlib.import_module(f"datasets.{kind}.load"), "ensure_sample", tiny)
    given = flags_of(name)
    for flag in ("--data_path", "--image_dir", *EXCLUDE[:1]):
        if flag in given:
            del given[(at := given.index(flag)) : at + (3 if flag == EXCLUDE[0] else 2)]
    run_main(name, *given, "--epochs", 1, "--max_batches", 2, "--output_dir", tmp_path / "runs")
    (run,) = (tmp_path / "runs").iterdir()
    assert made[0] == (kind, f"data/sample_{kind}")
    assert read_json(run / "config.json")["dataset"]["synthetic"] is True
    assert read_json(run / "results.json")["synthetic"] is True
    for file in ("train.log", "evaluation_report.txt"):
        assert "the built-in synthetic sample" in (run / file).read_text(), file
