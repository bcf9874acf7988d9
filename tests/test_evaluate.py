"""evaluate.py gives the figures of the run itself, and judges both stages over every pair there is."""

import json

import numpy as np
import pytest
from jrdb_world import write_world
from test_train_stage1 import train
from test_train_stage2 import train_types

import evaluate
from utils.errors import CommandError
from utils.run import read_json


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    world = write_world(tmp_path_factory.mktemp("jrdb"), {"train": 4, "val": 2, "test": 6})
    stage1 = train(world, tmp_path_factory.mktemp("stage1"), "--epochs", "2")
    return world, stage1, train_types(world, stage1, tmp_path_factory.mktemp("stage2"))


def evaluated(run, *argv: str) -> dict:
    evaluate.main(evaluate.parse_args(["--run", str(run), *argv]))
    return read_json(max(run.glob("evaluation_*"), key=lambda p: p.stat().st_mtime) / "results.json")


def test_figures_are_those_of_the_run(runs):
    _, stage1, stage2 = runs
    for run, key in ((stage1, "auroc"), (stage2, "macro_f1")):
        recorded, again = read_json(run / "results.json"), evaluated(run, "--split", "test")
        assert again["metrics"][key] == pytest.approx(recorded["metrics"]["test"][key], abs=1e-12)
        assert again["verdict"] == recorded["verdict"]
        assert again["baselines"] == recorded["baselines"]


def test_both_stages_are_judged_over_every_pair_of_every_frame(runs):
    world, _, stage2 = runs
    found = evaluated(stage2, "--split", "test")["end_to_end"]
    counts = np.array(found["confusion"])
    people = 16  # per frame of the world
    assert counts.shape == (6, 6) and counts.sum() == 6 * 12 * people * (people - 1) // 2
    annotated = 0
    for path in (world / "labels" / "labels_2d_activity_social_stitched").glob("test*.json"):
        for records in json.loads(path.read_text())["labels"].values():
            annotated += sum(len(person["H-interaction"]) for person in records) // 2
    assert counts[1:].sum() == annotated
    assert found["macro_f1"] > 0.4
    assert set(found["by_sequence"]) == {f"test-{k}_0" for k in range(6)}
    assert found["social_groups"]["G2"]["true_groups"] == 6 * 12 * 4
    assert found["social_groups"]["G2"]["ap"] > found["social_groups"]["G1"]["ap"] / 2 > 0
    report = max(stage2.glob("evaluation_test*")) / "end_to_end_report.txt"
    assert "none" in report.read_text() and "by sequence" in report.read_text()


def test_other_data_and_other_checkpoints(runs, tmp_path):
    _, stage1, _ = runs
    other = write_world(tmp_path / "other", {"train": 1, "val": 1, "test": 5}, seed=9)
    found = evaluated(stage1, "--data_path", str(other), "--checkpoint", str(stage1 / "last.pth"))
    assert found["metrics"]["auroc"] > 0.9


def test_what_is_no_run_is_refused(runs, tmp_path):
    _, stage1, _ = runs
    with pytest.raises(CommandError, match=r"cannot read .*config\.json"):
        evaluated(tmp_path)
    copy = tmp_path / "copy"
    copy.mkdir()
    config = json.loads((stage1 / "config.json").read_text()) | {"script_name": "os.py"}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CommandError, match=r"names the script 'os\.py'"):
        evaluated(copy)
    assert [p.name for p in copy.iterdir()] == ["config.json"]
