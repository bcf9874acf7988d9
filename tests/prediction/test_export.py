"""predict.py --export: a program that runs without the model's code and gives its numbers at any batch."""

import json

import numpy as np
import pandas
import pytest
import torch
from torch.nn.functional import interpolate

import predict
from prediction.export import export_model, make_inputs
from prediction.trained import open_trained
from tests import tiny_runs
from tests.test_predict import make_checkpoint
from utils.metrics.interaction import pair_probabilities
from utils.run.errors import CommandError, ScriptError

CPU = torch.device("cpu")


def exported(run, path):
    """The program's function, what is written beside it, and the trained model."""
    predict.main(predict.parse_args(["--run", str(run), "--export", str(path), "--device", "cpu"]))
    about = {"about.json": ""}
    program = torch.export.load(path, extra_files=about).module()
    return program, json.loads(about["about.json"]), open_trained(run, CPU)


def test_a_run_of_colour_is_traced_on_colour():
    trained = open_trained(tiny_runs.run_of("train_mae"), CPU)
    shape = {}
    for trained.args.colour in (False, True):
        shape[trained.args.colour] = make_inputs(trained, ("images",), 3)["images"].shape[1]
    assert shape == {False: 1, True: 3}


@pytest.mark.long
def test_the_probability_of_an_anomaly_is_calibrated(tmp_path, capfd):
    run = tiny_runs.run_of("train_anomaly_with_labels")
    program, about, trained = exported(run, tmp_path / "model.pt2")
    assert "Symbol" not in capfd.readouterr().err
    assert about["threshold"] == trained.state["threshold"]
    assert list(about["outputs"]) == ["probability", "cells", "marks"]
    batch = trained.script.build_datasets(trained.args).parts["test"].__getitems__(range(4))
    found, _, _ = program(*(batch[name] for name in about["inputs"]))
    table = pandas.read_csv(run / "test_predictions.csv")
    assert np.allclose(found, table["score"][:4], atol=1e-4)


@pytest.mark.parametrize(
    ("script", "features", "names"),
    [
        ("train_stage2.py", "crops+geometry", ["crops", "left", "right", "geometry"]),
        ("train_stage1.py", "geometry", ["left", "right", "persons", "geometry"]),
    ],
)
def test_pairs_and_people_vary_independently(tmp_path, script, features, names):
    checkpoint = make_checkpoint(tmp_path / "best_f1.pth", script, features=features)
    program, about, trained = exported(checkpoint, tmp_path / "model.pt2")
    typed = script == "train_stage2.py"
    assert list(about["inputs"]) == names and about["geometry_columns"] == trained.state["feature_names"]
    own = trained.state["class_names"] if typed else ["no interaction", "interaction"]
    assert about["class_names"] == own
    for people, pairs, size in ((1, 1, (32, 16)), (2, 1, (50, 31)), (4, 9, (20, 20))):
        inputs = make_inputs(trained, tuple(names), pairs)
        if "crops" in names:
            inputs["crops"] = torch.randint(256, (people, 3, *size), dtype=torch.uint8)
            inputs["left"], inputs["right"] = torch.randint(people, (2, pairs))
        found = [part.numpy() for part in program(*inputs.values())]
        if "crops" in names:
            inputs["crops"] = interpolate(inputs["crops"], (32, 16), mode="bilinear", antialias=True)
        with torch.no_grad():
            model = trained.model
            how, who = model(inputs, both=True) if typed else (None, model(inputs))
        expected = pair_probabilities(who.numpy(), how.numpy() if typed else None, trained.state)
        assert [part.shape for part in found] == [(pairs,), (pairs, 5)][: 2 if typed else 1]
        assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=False))


def test_a_program_with_other_numbers_is_not_written(tmp_path, monkeypatch):
    trained = open_trained(make_checkpoint(tmp_path / "a.pth", "train_stage1.py", features="geometry"), CPU)
    load = torch.export.load

    def load_another(file):
        program = load(file)
        program.state_dict["model.head.4.bias"].data[1] += 1e-2
        return program

    monkeypatch.setattr(torch.export, "load", load_another)
    with pytest.raises(ScriptError, match=r"differs from the model by 0\.0"):
        export_model(trained, tmp_path / "model.pt2")
    assert not (tmp_path / "model.pt2").exists()


def test_wrong_places_are_one_clear_error(tmp_path):
    trained = open_trained(make_checkpoint(tmp_path / "a.pth", "train_stage1.py", features="geometry"), CPU)
    with pytest.raises(CommandError, match=r"must end in \.pt2"):
        export_model(trained, tmp_path / "model.onnx")
    with pytest.raises(CommandError, match="no folder"):
        export_model(trained, tmp_path / "nowhere" / "model.pt2")
