"""It learns, or it says so: twelve faults planted into real runs are flagged, healthy runs are not."""

import re
import signal

import pytest
import torch

from tests.faults.planted import FAULTS, criterion_class, healthy, zero_input
from tests.faults.stopped_runs import (
    EACH,
    OTHERS,
    SCRIPTS,
    argv,
    exit_code,
    only_run,
    stopped,
    train,
    whole_run,
)
from tests.tiny_runs import assert_same_run
from utils.run.errors import ScriptError
from utils.run.folder import read_json
from utils.training.checkpoint import load_checkpoint
from utils.training.learning import LearningCheck

STAGE1 = "train_stage1"
SAME = "every sample of val gets the same output"
NO_SIGNAL = "the train loss stays at .*, a constant output reaches"
WORDS = {  # what says so: the table of docs/reliability.md
    "label_free_loss": "before_training: .*the loss does not depend on the labels",
    "redrawn_labels": "before_training: .*differ between two reads",
    "constant_labels": r"exit 3: the train split has one (class|age) only: \d+ samples, all ",
    "shuffled_labels": f"after_epoch: .*{NO_SIGNAL}",
    "zero_input": f"after_epoch: .*{SAME}",
    "no_learning_rate": f"after_epoch: .*(tensors .* did not change in an epoch|{SAME})",
    "frozen": "error: .*does not require grad",
    "dead_relu": f"after_epoch: .*({SAME}|no gradient reaches)",
    "huge_learning_rate": "after_epoch: .* is far from the best constant's|exit 4: .* norm (inf|nan)",
    "detached": "after_epoch: .*no gradient reaches",
    "activated_twice": f"after_epoch: .*(outputs are probabilities|{SAME}|{NO_SIGNAL})",
    "activated_in_the_loss": "before_training: .*certain and right outputs still cost",
}


class Flagged(Exception):
    """The learning check said something: the rest of the run tells no more."""


def outcome(script, fault, folder, monkeypatch, *flags) -> str:
    """What became of a run with this fault: the first warning, the error, or the verdict."""
    line = argv(script, folder, *flags)  # makes what stage 2 starts from, without the fault
    with monkeypatch.context() as patch:
        for name in ("before_training", "after_epoch"):
            stop_at_warnings(patch, name)
        more = fault(patch, script)
        try:
            SCRIPTS[script].main(SCRIPTS[script].parse_args([*line, *more]))
        except Flagged as warning:
            return f"warning: {warning}"
        except ScriptError as error:
            return f"exit {error.exit_code}: {error}"
        except (ValueError, RuntimeError) as error:
            return f"error: {error}"
    return read_json(only_run(folder) / "results.json")["verdict"]


def stop_at_warnings(patch, name) -> None:
    check = getattr(LearningCheck, name)

    def checked(self, *values, **options):
        before = len(self.warned)
        check(self, *values, **options)
        if warnings := list(self.warned.values())[before:]:
            raise Flagged(f"{name}: " + "; ".join(warnings))

    patch.setattr(LearningCheck, name, checked)


@pytest.mark.parametrize("seed", [pytest.param(s, marks=pytest.mark.long if s else ()) for s in range(10)])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_flagged(fault, seed, tmp_path, monkeypatch):
    found = outcome(STAGE1, fault, tmp_path, monkeypatch, "--seed", seed)
    print(f"OUTCOME {STAGE1} {fault.__name__} seed {seed}: {found}")
    assert re.search(WORDS[fault.__name__], found)


@pytest.mark.parametrize(
    "seed", [pytest.param(s, marks=pytest.mark.long if s > 1 else ()) for s in range(20)]
)
def test_a_healthy_run_is_left_alone(seed, tmp_path, monkeypatch):
    found = outcome(STAGE1, healthy, tmp_path, monkeypatch, "--seed", seed)
    print(f"OUTCOME {STAGE1} healthy seed {seed}: {found}")
    assert found == "LEARNED"


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "script"),
    [
        pytest.param(fault, script, id=f"{name}-{script}")
        for name, fault in FAULTS.items()
        for script in OTHERS
        if name != "shuffled_labels" or script in ("train_stage2", "train_ddp")  # else unseen
    ],
)
def test_a_fault_is_flagged_in_the_other_scripts(script, fault, tmp_path, monkeypatch):
    found = outcome(script, fault, tmp_path, monkeypatch)
    print(f"OUTCOME {script} {fault.__name__}: {found}")
    assert re.search(WORDS[fault.__name__], found)


@pytest.mark.long
@pytest.mark.parametrize(
    ("script", "flags"), [("train_stage2", ["--lr", "3e-3"]), ("train_ddp", []), ("train_mae", [])]
)
def test_the_check_says_nothing_about_healthy_runs_of_the_other_scripts(script, flags, tmp_path, monkeypatch):
    """Their verdict is another matter: three epochs on a tiny world may well be NOT LEARNED, four subjects
    are NOT JUDGED. The 24 train frames of the tiny AnoVox sample are not learned in seconds at all, and the
    check says so."""
    found = outcome(script, healthy, tmp_path, monkeypatch, *flags)
    print(f"OUTCOME {script} healthy: {found}")
    assert found in ("LEARNED", "NOT LEARNED", "NOT JUDGED")


@pytest.mark.parametrize("script", EACH)
def test_a_batch_learned_by_heart_leaves_no_trace(script, tmp_path):
    run = train(script, tmp_path, "--overfit_one_batch")
    said = re.search(r"one batch of \d+ can.*", (run / "train.log").read_text())
    print(f"OUTCOME {script}: {said[0]}")
    assert "can be learned by heart: loss " in said[0]
    assert_same_run(whole_run(script), run)


@pytest.mark.long
def test_a_batch_of_equal_inputs_is_not_learned_by_heart(tmp_path, monkeypatch):
    zero_input(monkeypatch, STAGE1)
    run = train(STAGE1, tmp_path, "--overfit_one_batch", "--epochs", 1)
    warnings = read_json(run / "status.json")["warnings"]
    assert any("cannot be learned by heart" in text for text in warnings)


def poisoned_at(patch, script, step) -> list[torch.nn.Module]:
    """Make the loss of that training step NaN; returns a list that gets the model."""
    module, kind, models, count = SCRIPTS[script], criterion_class(script), [], iter(range(1, 10**6))
    train_one_epoch, forward, training = module.train_one_epoch, kind.forward, []

    def train(model, *values, **options):
        models.append(model)
        training.append(True)
        return train_one_epoch(model, *values, **options)

    def poisoned(self, outputs, labels):
        losses = forward(self, outputs, labels)
        return losses * float("nan") if training and next(count) == step else losses

    patch.setattr(module, "train_one_epoch", train)
    patch.setattr(kind, "forward", poisoned)
    return models


@pytest.mark.parametrize("script", EACH)
def test_a_nan_stops_with_the_weights_of_the_step_before(script, tmp_path, monkeypatch, capsys):
    before = stopped(monkeypatch, script, tmp_path / "stopped", 2, signal.SIGTERM)
    with monkeypatch.context() as patch:
        models = poisoned_at(patch, script, 3)
        assert exit_code(script, argv(script, tmp_path / "poisoned")) == 4
    said = capsys.readouterr().err
    assert "epoch 1 step 3: loss nan" in said
    assert "samples of the batch: " in said
    state = load_checkpoint(before / "last.pth")
    expected = state.get("trained", state["model"])
    assert state["step"] == 2
    assert all(torch.equal(value, expected[key]) for key, value in models[0].state_dict().items()
               if "running" not in key and "batches" not in key)  # fmt: skip
    status = read_json(only_run(tmp_path / "poisoned") / "status.json")
    assert status["state"] == "failed"
    assert "loss nan" in status["reason"]


@pytest.mark.parametrize(("flags", "code"), [([], 0), (["--max_batches", "2"], 5)])
def test_require_learning(flags, code, tmp_path, capsys):
    assert exit_code(STAGE1, argv(STAGE1, tmp_path, *flags, "--require_learning")) == code
    assert ("NOT LEARNED" in capsys.readouterr().err) == (code == 5)
