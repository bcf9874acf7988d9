"""A run must not be judged on what the run that it starts from was trained on."""

from types import SimpleNamespace

import pytest

from utils.run.errors import CommandError
from utils.run.folder import write_json
from utils.run.leakage import refuse_judged, shared, warn_of_verdict

STATE = {"trained_on": {"split": {"train": ["a", "b"], "val": ["c"]}}, "args": {"fold": None}}


def test_groups_that_share_one_item_are_paired_whatever_they_are_called():
    """The first hash is of a whole group, and none of an item."""
    assert shared({"a": ["A", "1", "2"], "b": ["B", "3"]}, {"x": ["X", "9", "2"], "y": ["A", "8"]}) == {
        "x": "a"
    }


def judged(folder, hashes, by_name=False, **split):
    parts = {"train": ["t"], "val": ["v"], "test": ["w"]} | split
    every = {name: ["G" + name, name] for names in parts.values() for name in names} | hashes
    data = SimpleNamespace(split=parts, hashes=every)
    refuse_judged(folder / "best_f1.pth", STATE, data, "--weights", by_name)


def test_copies_of_train_data_are_refused_in_val_and_test_alone(tmp_path):
    write_json(tmp_path / "hashes.json", {"a": ["A", "1"], "b": ["B", "2"], "c": ["C", "3"]})
    copy = ["X", "1"]
    for name in ("v", "w"):
        with pytest.raises(CommandError, match=f"trained on 1 of the 2 groups in val and test: {name}\n"):
            judged(tmp_path, {name: copy})
    judged(tmp_path, {"t": copy})  # to be trained on again
    judged(tmp_path, {"v": ["X", "3"]})  # it was val there too
    judged(tmp_path, {}, val=["a"])  # another group of the same name


@pytest.mark.parametrize(
    ("verdict", "said"),
    [("LEARNED", None), ("NOT JUDGED", "ended NOT JUDGED (few)"), (None, "is unknown what")],
)
def test_a_start_that_learned_nothing_or_has_not_finished_is_told(tmp_path, caplog, verdict, said):
    if verdict:
        write_json(tmp_path / "results.json", {"verdict": verdict, "verdict_reason": "few"})
    warn_of_verdict(tmp_path)
    assert said in caplog.text if said else not caplog.text


def test_groups_of_the_same_data_are_known_by_name_without_hashes(tmp_path, caplog):
    with pytest.raises(CommandError, match="Leakage: .*--weights .* in val and test: a\n"):
        judged(tmp_path, {}, by_name=True, val=["a"])
    assert not caplog.records
    judged(tmp_path, {}, val=["a"])
    assert "hashes.json is not there: whether --weights has seen val or test is unknown" in caplog.text
