"""predict.py --export: a program that runs without the model's code and gives its numbers at any batch."""

import json

import pytest
import torch

import predict
from prediction.export import export_model, make_inputs
from prediction.trained import open_trained
from tests import tiny_runs
from tests.test_predict import make_checkpoint
from utils.run.errors import CommandError, ScriptError

CPU = torch.device("cpu")


def exported(run, path):
    """The program's function, what is written beside it, and the trained model."""
    predict.main(predict.parse_args(["--run", str(run), "--export", str(path), "--device", "cpu"]))
    about = {"about.json": ""}
    program = torch.export.load(path, extra_files=about).module()
    return program, json.loads(about["about.json"]), open_trained(run, CPU)


@pytest.mark.parametrize(
    "name", ["train_mae", pytest.param("train_anomaly_with_labels", marks=pytest.mark.long)]
)
def test_one_input_per_sample(tmp_path, capsys, name):
    program, about, trained = exported(tiny_runs.run_of(name), tmp_path / "model.pt2")
    for samples in (1, 2, 5):
        inputs = make_inputs(trained, tuple(about["inputs"]), samples).values()
        with torch.no_grad():
            found, expected = program(*inputs), trained.model(*inputs)
        if name == "train_mae":
            assert found.shape == (samples,) and torch.allclose(found, expected, atol=1e-4)
        else:
            assert found[0].shape == (samples,) and torch.allclose(found[0], expected[0], atol=1e-5)
            assert torch.allclose(found[1], expected[1], atol=1e-5)
            assert about["calibration"] == trained.state["calibration"]
    assert about["script"] == f"{name}.py" and about["threshold"] == trained.state["threshold"]
    assert "on 1 and 7 samples (traced on 3)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "features", "names"),
    [
        ("train_stage2.py", "crops+geometry", ["crops", "left", "right", "geometry"]),
        ("train_stage1.py", "geometry", ["geometry"]),
    ],
)
def test_pairs_and_people_vary_independently(tmp_path, script, features, names):
    checkpoint = make_checkpoint(tmp_path / "best_f1.pth", script, features=features)
    program, about, trained = exported(checkpoint, tmp_path / "model.pt2")
    assert about["inputs"] == names and len(about["class_names"]) == 5
    for people, pairs in ((1, 1), (2, 1), (4, 9)):
        inputs = make_inputs(trained, tuple(names), pairs)
        if "crops" in names:
            inputs["crops"] = torch.randint(256, (people, 3, 32, 16), dtype=torch.uint8)
            inputs["left"], inputs["right"] = torch.randint(people, (2, pairs))
        with torch.no_grad():
            found = program(*inputs.values())
            model, pairs_of = trained.model, {name: inputs[name] for name in names}
            expected = model.both_stages(pairs_of) if len(found) == 2 else [model(pairs_of)]
        assert [tuple(part.shape) for part in found] == [(pairs, 2), (pairs, 5)][: len(found)]
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))
    assert len(found) == (2 if script == "train_stage2.py" else 1)


def test_a_program_with_other_numbers_is_not_written(tmp_path, monkeypatch):
    trained = open_trained(make_checkpoint(tmp_path / "a.pth", "train_stage1.py", features="geometry"), CPU)
    load = torch.export.load

    def load_another(file):
        program = load(file)
        program.state_dict["model.head.4.bias"].data += 1e-3
        return program

    monkeypatch.setattr(torch.export, "load", load_another)
    with pytest.raises(ScriptError, match=r"differs from the model by 0\.001"):
        export_model(trained, tmp_path / "model.pt2")
    assert not (tmp_path / "model.pt2").exists()


def test_wrong_places_are_one_clear_error(tmp_path):
    trained = open_trained(make_checkpoint(tmp_path / "a.pth", "train_stage1.py", features="geometry"), CPU)
    with pytest.raises(CommandError, match=r"ending in \.pt2"):
        export_model(trained, tmp_path / "model.onnx")
    with pytest.raises(CommandError, match="no folder"):
        export_model(trained, tmp_path / "nowhere" / "model.pt2")
