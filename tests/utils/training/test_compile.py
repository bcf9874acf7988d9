"""--compile: the same run from other kernels. It resumes, and says so where it cannot work or goes stale."""

import copy
import shutil

import pytest
import torch

import train_mae
from tests.tiny_runs import (
    assert_same_run,
    furthest_weight,
    history,
    run_of,
    stopped_after,
    train,
    train_on,
    weights,
)
from utils.run.errors import CommandError
from utils.run.folder import read_json
from utils.training.device import compile_forward
from utils.training.learning import LearningCheck


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def traced(monkeypatch):
    """Compiled as always but for the kernels, which take minutes: the traced operations run as they are."""
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda part: compiled(part, backend="eager"))


def warnings(run):
    return read_json(run / "status.json")["warnings"]


def resume(run, *more):
    train_mae.main(train_mae.parse_args(["--resume", str(run), *more]))
    return run


@pytest.mark.long  # what is imported to compile takes seconds
@pytest.mark.parametrize("name", ["train_anomaly_with_labels", "train_stage1", "train_stage2"])
def test_a_compiled_run_is_the_run(name, tmp_path, traced):
    compiled, plain = train(name, tmp_path, "--compile"), run_of(name)
    assert read_json(compiled / "config.json")["optimizations"]["compiled"] is True
    assert weights(compiled).keys() == weights(plain).keys()
    for key, value in weights(plain).items():
        torch.testing.assert_close(weights(compiled)[key], value, rtol=1e-3, atol=1e-4)
    assert warnings(compiled) == warnings(plain)


@pytest.mark.long
def test_a_compiled_run_resumes_bit_for_bit_and_goes_on_without(tmp_path, traced, monkeypatch):
    whole = train("train_mae", tmp_path / "whole", "--compile", "--ema_decay", 0.9)
    with stopped_after(2, monkeypatch):
        train("train_mae", tmp_path / "parts", "--compile", "--ema_decay", 0.9)
    (parts,) = (tmp_path / "parts").iterdir()
    plain = shutil.copytree(parts, tmp_path / "plain")
    assert_same_run(resume(parts), whole)
    assert history(resume(plain, "--no-compile"))[-1] == pytest.approx(history(whole)[-1], rel=1e-3)


@pytest.mark.long
def test_two_processes_compile_too(tmp_path, traced):
    compiled = train_on(2, "train_stage1", tmp_path / "compiled", "--compile")
    plain = train_on(2, "train_stage1", tmp_path / "plain")
    assert furthest_weight(compiled, plain) < 1e-4 and warnings(compiled) == warnings(plain)


@pytest.mark.long
def test_compiled_kernels_learn_the_same(tmp_path):
    compiled = train("train_mae", tmp_path, "--compile")
    plain = history(run_of("train_mae"))
    assert [row["train_loss"] for row in history(compiled)] == pytest.approx(
        [row["train_loss"] for row in plain], rel=1e-2
    )


def test_a_machine_that_can_not_compile_is_told_so(monkeypatch):
    def no_compiler(part):
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nmore lines")

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(CommandError, match=r"--compile: .* \(InvalidCxxCompiler: No .* found\)$"):
        compile_forward(torch.nn.Linear(1, 1), torch.device("cpu"))


@pytest.mark.long
def test_a_compiled_step_that_goes_stale_is_named(tmp_path, traced, monkeypatch):
    """Its weights are those of before: the parameters that are trained stand still."""

    def stale(model, device):
        model._compiled_call_impl = torch.compile(copy.deepcopy(model)._call_impl)

    monkeypatch.setattr("utils.training.run.compile_forward", stale)
    said = warnings(train("train_stage1", tmp_path, "--compile"))
    assert any("trainable tensors" in text and "did not change in an epoch" in text for text in said), said


@pytest.mark.long
def test_compiling_again_in_later_epochs_is_named(tmp_path, traced, monkeypatch):
    after_epoch = LearningCheck.after_epoch

    def forget(self, *values):
        after_epoch(self, *values)
        torch._dynamo.reset()

    monkeypatch.setattr(LearningCheck, "after_epoch", forget)
    said = warnings(train("train_mae", tmp_path, "--compile"))
    assert any("compiled again after the second epoch" in text for text in said), said


def test_a_copy_of_a_compiled_model_computes_with_its_own_weights(traced):
    model = torch.nn.Linear(2, 1)
    compile_forward(model, torch.device("cpu"))
    other, inputs = copy.deepcopy(model), torch.ones(1, 2)
    assert torch.equal(model(inputs), other(inputs))
    with torch.no_grad():
        other.weight.zero_()
    assert torch.equal(other(inputs), other.bias[None]) and list(model.state_dict()) == ["weight", "bias"]
