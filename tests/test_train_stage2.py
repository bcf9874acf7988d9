"""Stage 2 end to end: what it takes from stage 1, what it leaves of it, and that types never change
places."""

import math
import shutil

import numpy as np
import pandas
import pytest
import torch

import train_stage2
from datasets.jrdb.classes import INTERACTION_CLASSES
from datasets.jrdb.dataset import JRDBPairDataset
from datasets.jrdb.load import join_pairs, names_of
from prediction.trained import open_trained
from tests.jrdb_world import TYPES, write_world
from tests.tiny_runs import (
    assert_same_run,
    flags_of,
    furthest_weight,
    history,
    jrdb,
    replay,
    run_of,
    stopped_after,
    train,
    train_on,
)  # fmt: skip
from utils.metrics.classification import trivial_guesses
from utils.run.errors import CommandError
from utils.run.folder import read_arrays, read_json, write_json
from utils.training.checkpoint import load_checkpoint, save_checkpoint
from utils.training.stage1 import adopt_stage1, find_stage1

NAME = "train_stage2"


@pytest.fixture(scope="module")
def stage1():
    return run_of("train_stage1")


@pytest.fixture(scope="module")
def run():
    return run_of(NAME)


def test_learns_types_and_is_judged_with_stage_1(run):
    results = read_json(run / "results.json")
    assert results["verdict"] == "LEARNED"
    assert results["input_worth"]["all"] == results["metrics"]["test"]["macro_f1"]
    assert results["metrics"]["test"]["macro_f1"] > 0.5 > results["baselines"]["uniform guess"]["macro_f1"]
    guesses = results["baselines"]
    assert guesses["majority class"]["balanced_accuracy"] == pytest.approx(1 / 5)
    assert guesses["uniform guess"]["accuracy"] == pytest.approx(1 / 5)
    table, kinds = pandas.read_csv(run / "test_predictions.csv"), list(INTERACTION_CLASSES)
    there = np.bincount(table.label.map(kinds.index), minlength=5) / len(table)
    known = read_arrays(run / "references.npz")
    of_train, of_val = (np.bincount(known[f"{part}_labels"], minlength=5) for part in ("train", "val"))
    miss = ((np.eye(5)[table.label.map(kinds.index)] - of_val / of_val.sum()) ** 2).sum(axis=1).mean()
    assert results["metrics"]["test"]["brier_prior"] == pytest.approx(miss)
    assert guesses["guess by train shares"]["accuracy"] == pytest.approx(there @ of_train / of_train.sum())
    suspects = pandas.read_csv(run / "suspects.csv")  # p_label: the probability of the label it has
    assert [row[row["label"]] for row in suspects.to_dict("records")] == suspects.p_label.tolist()
    trivial = {name: guesses[name]["macro_f1"] for name in trivial_guesses(np.zeros(1, int), 5)}
    best = max(trivial, key=trivial.get)
    gain = results["metrics"]["test"]["macro_f1"] - trivial[best]
    assert results["verdict_reason"].startswith(f"beats {best}: macro F1 {gain:+.3f} [")
    both = results["end_to_end"]
    assert both["verdict"] == "LEARNED" and "stage 1's pairs, always" in both["verdict_reason"]
    assert both["confidence"]["macro_f1"][0] < both["macro_f1"] < both["confidence"]["macro_f1"][1]
    assert set(both["per_outcome"]) == {"none", *INTERACTION_CLASSES}
    best = load_checkpoint(run / "best_f1.pth")
    rows = read_json(run / "history.json")
    assert results["metrics"]["val"]["end_to_end"]["macro_f1"] == rows[best["epoch"] - 1]["val_end_to_end_f1"]
    assert results["threshold"] == best["threshold"]
    for name in ("class_distribution.png", "end_to_end_report.txt", "det_group.txt", "gt_group.txt"):
        assert (run / name).is_file(), name
    model = read_json(run / "config.json")["model"]
    assert model["pretrained"] is True and model["source"].startswith(str(run_of("train_stage1")))
    losses = [row["val_loss"] for row in rows]
    assert load_checkpoint(run / "last.pth")["best"]["loss"]["value"] == min(losses)


@pytest.mark.parametrize("flags", [[], ["--freeze_backbone"]])
def test_who_interacts_stays_the_answer_of_stage_1_bit_for_bit(stage1, tmp_path, flags):
    """Weights, statistics and every probability, whether stage 2 trains a trunk of its own or not."""
    run = train(NAME, tmp_path, *flags, "--epochs", 1) if flags else run_of(NAME)
    alone, together = (open_trained(folder, torch.device("cpu")) for folder in (stage1, run))
    for key, value in alone.state["model"].items():
        assert torch.equal(value, together.state["model"][f"stage1.{key}"]), key
    own = [key for key in together.state["model"] if key.startswith("trunk.")]
    assert bool(own) != bool(flags)
    assert not own or any(
        not torch.equal(together.state["model"][key], together.state["model"][f"stage1.{key}"]) for key in own
    )
    data = together.script.build_datasets(together.args)
    part = join_pairs("test", data.loaded["test"], data.rules)
    expected = alone.evaluate(part)
    found = together.evaluate(part)
    assert np.array_equal(found["who"], expected["logits"])
    for mine, theirs in (("calibration", "calibration"), ("stage1_threshold", "threshold")):
        assert together.state[mine] == alone.state[theirs]


def assert_weights_of_the_balanced_train_split(run):
    """Imbalance that resampling has removed is not corrected once more by the loss."""
    training, dataset = (read_json(run / "config.json")[part] for part in ("training", "dataset"))
    counts, natural = training["class_counts_after_balancing"], dataset["class_counts"]["train"]
    assert counts != natural, "nothing had to be balanced: the test tests nothing"
    present = [count for count in counts.values() if count]
    assert min(present) >= max(present) // 2
    expected = [sum(present) / (len(present) * count) if count else 0 for count in counts.values()]
    assert training["loss_weights"]["weight"] == pytest.approx(expected)


def test_class_map_does_not_follow_the_counts(tmp_path):
    """Val's most frequent type differs from train's; a type absent from val is shown as absent."""
    data = ["--data_path", write_world(tmp_path / "w", {"train": 3}), "--epochs", 1]
    rare = (TYPES[3], TYPES[3], TYPES[0], TYPES[3], TYPES[4])
    write_world(tmp_path / "w", {"train": 3, "val": 2}, seed=1, types=rare)
    stage1 = train("train_stage1", tmp_path / "one", *data)
    run = train(NAME, tmp_path / "two", *data, "--stage1_checkpoint", stage1)
    assert_weights_of_the_balanced_train_split(run)
    assert load_checkpoint(run / "best_f1.pth")["class_names"] == list(INTERACTION_CLASSES)
    results = read_json(run / "results.json")
    assert "test" not in results["metrics"] and results["test_split"] == "val"  # no copy of val
    per_class = results["metrics"]["val"]["per_class"]
    assert list(per_class) == list(INTERACTION_CLASSES)
    absent = dict.fromkeys(("precision", "recall", "f1", "ap"))
    assert per_class["conversation"] == absent | {"support": 0}
    assert per_class["sitting together"]["support"] > per_class["walking together"]["support"] > 0
    counts = read_json(run / "config.json")["dataset"]["class_counts"]
    assert counts["val"]["sitting together"] == per_class["sitting together"]["support"]


def test_a_run_is_repeated_and_resumed_without_the_stage_1_run_it_came_from(
    stage1, run, tmp_path, monkeypatch
):
    """What was taken from it is in the run."""
    temporary = shutil.copytree(stage1, tmp_path / "stage1")
    with stopped_after(2, monkeypatch):
        train(NAME, tmp_path / "stopped", "--stage1_checkpoint", temporary)
    shutil.rmtree(temporary)
    (stopped,) = (tmp_path / "stopped").iterdir()
    train_stage2.main(train_stage2.parse_args(["--resume", str(stopped)]))
    assert_same_run(run, stopped)
    replayed = replay(NAME, run, tmp_path / "replayed")
    assert_same_run(run, replayed)
    assert (
        "first weights, loss, optimizer and schedule: the same as of --config"
        in (replayed / "train.log").read_text()
    )


def test_a_stage_1_run_that_went_on_is_not_the_one_that_stage_2_came_from(stage1, tmp_path):
    def recorded(state: dict) -> str:
        save_checkpoint(tmp_path / "stage1.pth", state)
        args = train_stage2.parse_args(["--stage1_checkpoint", str(tmp_path / "stage1.pth")])
        return adopt_stage1(args, train_stage2.FROM_STAGE1, names_of)["sha256"]

    state = load_checkpoint(stage1 / "best_f1.pth")
    first = recorded(state)
    assert recorded(state | {"args": state["args"] | {"output_dir": "elsewhere"}}) == first
    next(iter(state["model"].values())).view(-1)[0] += 1
    assert recorded(state) != first


@pytest.mark.long
def test_two_processes_make_one_run(tmp_path):
    common = ["--epochs", 1, "--dropout", 0, "--optimizer", "sgd", "--batch_size"]
    alone = train(NAME, tmp_path / "one", *common, 8)
    made = train_on(2, NAME, tmp_path / "two", *common, 4)
    assert furthest_weight(alone, made) < 1e-6
    assert history(made)[0]["val_macro_f1"] == pytest.approx(history(alone)[0]["val_macro_f1"])


def test_focal_loss_by_hand():
    loss = train_stage2.FocalLoss(torch.tensor([1.0, 3.0]), gamma=2.0)
    found = loss(torch.tensor([[0.0, math.log(3)]] * 2), torch.tensor([0, 1]))
    assert found.tolist() == pytest.approx([0.75**2 * -math.log(0.25), 3 * 0.25**2 * -math.log(0.75)])
    plain = train_stage2.FocalLoss(None, gamma=0.0)
    logits, labels = torch.randn(7, 5), torch.arange(7) % 5
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert torch.allclose(plain(logits, labels), expected)


def test_unusable_stage_1_is_one_clear_error(stage1, tmp_path):
    def error(*argv: str) -> str:
        with pytest.raises(CommandError) as caught:
            train_stage2.main(train_stage2.parse_args([*argv, "--output_dir", str(tmp_path)]))
        assert not list(tmp_path.glob("stage2_*"))
        return str(caught.value)

    data = ["--data_path", str(jrdb())]
    assert "--stage1_checkpoint is required" in error(*data)
    assert "python train_stage1.py" in error()
    assert "best_accuracy.pth" in error(*data, "--stage1_checkpoint", str(stage1 / "wrong.pth"))
    given = [*data, "--stage1_checkpoint", str(stage1)]
    assert "--history_seconds 3" in error(*given, "--history_seconds", "3")
    assert "--features crops" in error(*given, "--features", "crops")
    state = load_checkpoint(stage1 / "best_f1.pth")
    save_checkpoint(tmp_path / "other.pth", state | {"class_names": state["class_names"][::-1]})
    assert "other class_names" in error(*data, "--stage1_checkpoint", str(tmp_path / "other.pth"))


def test_on_the_sample_it_starts_from_the_newest_run_that_learned(tmp_path):
    verdicts = {"": "LEARNED", "_2": "LEARNED", "_10": "LEARNED", "_11": "NOT LEARNED", "_12": "LEARNED"}
    for number, verdict in verdicts.items():
        folder = tmp_path / f"stage1_experiment_20261122_100000{number}"
        folder.mkdir()
        (folder / "config.json").write_text('{"script_name": "train_stage1.py"}')
        results = {"task": "stage1", "verdict": verdict, "synthetic": number != "_12"}  # that is on own data
        write_json(folder / "results.json", results)
        (folder / "best_f1.pth").touch()
    for flags in ([], ["--dry_run"], ["--check_data"]):
        args = train_stage2.parse_args(["--output_dir", str(tmp_path), *flags])
        assert find_stage1(args).parent.name.endswith("_10")
    args = train_stage2.parse_args(["--output_dir", str(tmp_path), "--fold", "1/5"])
    with pytest.raises(CommandError, match=f"train_stage1.py --fold 1/5 --output_dir {tmp_path}$"):
        find_stage1(args)


def test_negatives_are_not_loaded():
    args = train_stage2.parse_args([str(flag) for flag in flags_of(NAME)])
    adopt_stage1(args, train_stage2.FROM_STAGE1, names_of)
    for part in train_stage2.build_datasets(args).parts.values():
        assert (part.types >= 0).all() and np.array_equal(part.types, part.labels)


def test_what_group_sampling_leaves_out_is_not_trained_on(tmp_path, monkeypatch):
    draw = JRDBPairDataset.draw
    monkeypatch.setattr(JRDBPairDataset, "draw", lambda part, *epoch: draw(part, *epoch)[:: 1 + part.sampled])
    run = train(NAME, tmp_path, "--epochs", 1, "--max_batches", 1, "--stage2_balance_strategy", "none")
    config = read_json(run / "config.json")
    trained_on = config["training"]["class_counts_after_balancing"]
    assert sum(trained_on.values()) == config["dataset"]["train_samples"] == 96


def test_the_frame_rate_is_that_of_stage_1_unless_typed(stage1, tmp_path):
    state = load_checkpoint(stage1 / "best_f1.pth")
    state["args"]["frame_rate"] = 30.0
    save_checkpoint(tmp_path / "thirty.pth", state)
    flags = ["--data_path", str(tmp_path), "--stage1_checkpoint", str(tmp_path / "thirty.pth")]
    for typed, expected in (([], 30), (["--frame_rate", "10"], 10)):  # 10: other data
        args = train_stage2.parse_args([*flags, *typed])
        adopt_stage1(args, train_stage2.FROM_STAGE1, names_of)
        assert args.frame_rate == expected


def test_a_model_that_does_not_look_at_its_input_is_named(tmp_path, monkeypatch):
    build = train_stage2.build_model

    def build_blind(args):
        model, weights = build(args)
        model.trunk.geometry.register_forward_hook(lambda part, inputs, output: 0 * output)
        return model, weights

    monkeypatch.setattr(train_stage2, "build_model", build_blind)
    run = train(NAME, tmp_path, "--epochs", 1)
    assert "the model ignores geometry" in (run / "train.log").read_text()
