"""Splits: counts, order independence, disjointness over random tables, clear errors."""

import json

import numpy as np
import pytest

from datasets.splits import check_disjoint, fold_groups, read_split, split_groups
from utils.run.errors import DataError


def test_counts_of_each_part():
    split = split_groups([str(i) for i in range(1021)], 0.2, 0.1, 42)
    assert [len(split[p]) for p in ("train", "val", "test")] == [734, 82, 205]
    assert check_disjoint(split, "subjects") == "734 train, 82 val and 205 test subjects, none shared"


def test_same_split_in_any_order_and_with_repeated_names():
    names = [f"s{i}" for i in range(97)]
    shuffled = list(np.random.default_rng(0).permutation(names)) * 2
    assert split_groups(names, seed=7) == split_groups(map(str, shuffled), seed=7)
    assert split_groups(names, seed=7) != split_groups(names, seed=8)


def test_no_group_is_ever_shared_or_lost():
    """200 random tables, names such as '001', '1' and '1 ' included."""
    rng = np.random.default_rng(1)
    for trial in range(200):
        pool = [form.format(i) for i in range(40) for form in ("{}", "{:03d}", "{} ")]
        names = set(rng.choice(pool, size=int(rng.integers(4, 100))))
        test_size, val_size = rng.uniform(0, 0.5, 2)
        split = split_groups(names, test_size, val_size, seed=trial)
        check_disjoint(split)
        assert sorted(split["train"] + split["val"] + split["test"]) == sorted(names)
        assert abs(len(split["test"]) - test_size * len(names)) <= 1


def test_stratified_split_keeps_the_shares():
    names = [f"{i:03d}" for i in range(300)]
    decade = {name: 0 if i < 60 else 1 if i < 299 else 2 for i, name in enumerate(names)}  # one in the last
    for seed in range(5):
        split = split_groups(names, 0.2, 0.1, seed, stratify=decade)
        assert sum(decade[name] == 0 for name in split["test"]) == 12
    for seed in range(5):  # five are enough for a stratum
        split = split_groups("abcdefghij", 0.2, 0, seed, stratify={k: k > "e" for k in "abcdefghij"})
        assert len({*split["test"]} & {*"abcde"}) == 1
    of_ten = {name: k // 5 for k, name in enumerate(names[:50])}
    for test_size, val_size in ((0.1, 0.2), (0.96, 0.0), (0.02, 0.02)):  # fewer than strata
        split = split_groups(of_ten, test_size, val_size, 0, stratify=of_ten)
        assert sorted(sum(split.values(), [])) == names[:50] and len(split["test"]) == test_size * 50
    split_groups("abcd", 0.25, 0.25, 0, stratify={"a": 0, "b": 1, "c": 2, "d": 3})  # all joined into one


def test_folds_partition_random_tables_and_every_stratum_evenly():
    rng = np.random.default_rng(2)
    for trial in range(100):
        n = int(rng.integers(3, 9))
        names = [f"{i:03d}" for i in range(int(rng.integers(n, 60)))]
        decade = {name: int(rng.integers(0, 4)) for name in names}
        shuffled = rng.permutation(names).tolist()
        splits = [fold_groups(shuffled, f"{k}/{n}", trial, decade)[0] for k in range(1, n + 1)]
        assert splits == [fold_groups(names * 2, f"{k}/{n}", trial, decade)[0] for k in range(1, n + 1)]
        tested = [split["test"] for split in splits]
        assert sorted(sum(tested, [])) == names
        assert [split["val"] for split in splits] == tested[1:] + tested[:1]
        for split in splits:
            check_disjoint(split)
        for stratum in range(4):
            counts = [sum(decade[name] == stratum for name in part) for part in tested]
            assert max(counts) - min(counts) <= 1
    assert fold_groups(names, "1/3", 0)[0] != fold_groups(names, "1/3", 1)[0]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_groups(n):
    with pytest.raises(DataError, match=r"groups \(.*\) cannot be split"):
        split_groups([str(i) for i in range(n)])


def test_sizes():
    names = [str(i) for i in range(10)]
    assert split_groups(names, 0, 0)["test"] == []
    assert len(split_groups(names, 0, 0)["train"]) == 10
    with pytest.raises(DataError, match="train 0"):
        split_groups(names, 0.95, 0.5)


def test_shared_groups_are_named():
    with pytest.raises(DataError, match=r"1 subjects are in both train and test: 12"):
        check_disjoint({"train": ["12", "3"], "val": ["5"], "test": ["12"]}, "subjects")


def test_read_split(tmp_path):
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"train": ["b", "a"], "val": ["c"]}))
    assert read_split(file) == {"train": ["a", "b"], "val": ["c"], "test": []}
    file.write_text(json.dumps({"train": ["a"], "val": ["c"], "test": [], "later": ["d"], "seed": 1}))
    assert read_split(file)["test"] == []
    bad = {
        "{": "is not JSON",
        "[]": "a JSON object is expected, found a list",
        '{"train": ["a"], "val": ["c"], "train": ["b"]}': "the key 'train' stands twice",
        '{"train": [1], "val": ["a"]}': '"train"',
        '{"train": ["a"]}': '"val" is missing or empty',
        '{"train": ["a", "a"], "val": ["c"]}': "more than once",
        '{"train": [], "val": ["c"]}': "empty",
        '{"train": ["a", "b"], "val": ["b"]}': "1 groups are in both train and val: b",
        '{"train": ["a"], "valid": ["c"]}': r'"val" is missing or empty \(found: valid\)',
        '{"train": ["a"], "val": ["c"], "Test": ["d"]}': r'"test" is missing or empty \(found: Test\)',
    }
    for text, reason in bad.items():
        file.write_text(text)
        with pytest.raises(DataError, match=reason):
            read_split(file)
    with pytest.raises(DataError, match="cannot read"):
        read_split(tmp_path / "missing.json")
