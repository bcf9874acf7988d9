"""Which scenarios are in which part, as people ask for it: files of their own, towns, pasted things."""

import json

import pytest

from datasets.anovox.files import find_scenarios
from datasets.anovox.labels import build_table
from tests.anovox_world import load, split, tiny_sample
from utils.run.errors import CommandError, DataError


@pytest.fixture
def cache(tmp_path):
    return {"cache_dir": tmp_path / "cache"}


@pytest.fixture
def table(cache):
    return build_table(find_scenarios(tiny_sample()), **cache)


@pytest.fixture
def own() -> dict[str, list[str]]:
    return json.loads((tiny_sample() / "split.json").read_text())


def written(tmp_path, split: dict) -> str:
    (tmp_path / "mine.json").write_text(json.dumps(split), encoding="utf-8-sig")  # as Windows begins a text
    return str(tmp_path / "mine.json")


def test_scenarios_that_a_file_leaves_out_are_told(tmp_path, table, own):
    own["train"].remove(left := own["train"][0])
    split(table, tiny_sample(), split_method=written(tmp_path, own))
    assert table.notes[-1] == f"1 of 12 scenarios are in no part: {left}"


def test_blocks_of_one_scenario_that_overlap_are_no_split(tmp_path, table, own):
    name = own["train"][0]
    numbers = sorted(table.frame_id[table.rows_of([name])].tolist())
    own["val"].append(f"{name}:{numbers[1]}-{numbers[2]}")
    with pytest.raises(DataError, match="frames are in two parts"):
        split(table, tiny_sample(), split_method=written(tmp_path, own))
    for odd in (f"{name}:all", f"{name}:7", f"{name}:3-x"):
        own["val"][-1] = odd
        with pytest.raises(DataError, match=f"1 scenarios without usable frames .*\\s*first {odd}"):
            split(table, tiny_sample(), split_method=written(tmp_path, own))


@pytest.mark.parametrize("how", [{"split_method": "random"}, {"holdout_towns": ["Town07"]}])
def test_no_val_part_is_refused_before_training(table, how):
    with pytest.raises(DataError, match=r"the val part is empty .*\n.*raise --val_size"):
        split(table, tiny_sample(), val_size=0, **how)


def test_a_colon_in_a_name_is_no_block(table):
    table.scenario[table.scenario == table.scenario[0]] = "Scenario_2024-06-01T12:00:00"
    assert table.rows_of(["Scenario_2024-06-01T12:00:00"]).tolist() == [0, 1, 2, 3]
    assert table.rows_of([f"Scenario_2024-06-01T12:00:00:0-{table.frame_id[1]}"]).tolist() == [0, 1]


def test_nothing_but_normal_frames_are_trained_on_with_pasted_things(tmp_path, cache, own, caplog):
    """Whatever the data's own split.json says, which is of labelled anomalies."""
    options = {"label": "pasted", "pastes": 1, "image_size": (16, 24), "max_points": 16, "val_size": 0.3}
    data = load(tiny_sample(), **options, **cache)
    assert data.train.pasting and data.val.pasting and not data.parts["test"].pasting
    assert "split.json is not used: with --label pasted" in caplog.text
    with pytest.raises(DataError, match="of the train split are anomalous .*mine.json"):
        load(tiny_sample(), split_method=written(tmp_path, own), **options, **cache)


def test_towns_are_held_out_with_pasted_things_too(table, cache, tmp_path):
    normal = build_table([s for s in table.scenarios if s.kind == "NORMALITY"], "pasted", **cache)
    towns = {scenario.town for scenario in normal.scenarios}
    town = sorted(towns)[0]
    names, how, _ = split(normal, tmp_path, holdout_towns=[town], val_size=0.3, label="pasted")
    assert names["test"] == [s.name for s in normal.scenarios if s.town == town] and f"towns {town}" in how
    with pytest.raises(DataError, match="--holdout_towns .*: 4 of 4 scenarios are in these towns"):
        split(normal, tmp_path, holdout_towns=sorted(towns), label="pasted")
    with pytest.raises(CommandError, match="omit one"):
        split(normal, tmp_path, split_method="mine.json", holdout_towns=[town])


def test_what_is_advised_on_towns_with_anomalies_works(tmp_path, table):
    kinds = {(scenario.town, scenario.kind) for scenario in table.scenarios}
    town = next(town for town, kind in sorted(kinds) if kind == "NORMALITY")
    with pytest.raises(DataError, match="only test may have anomalies.\\n.*leave out .*--holdout_towns"):
        split(table, tmp_path, holdout_towns=[town], val_size=0.3, label="pasted")
    names, _, _ = split(table, tmp_path, val_size=0.3, label="pasted")
    assert {s.name for s in table.scenarios if s.kind != "NORMALITY"} == {*names["test"]}
