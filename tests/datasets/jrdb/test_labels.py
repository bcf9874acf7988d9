"""Reading label files: columns, merging, splits, and one clear error for every kind of bad input."""

import json

import numpy as np
import pytest

from datasets.jrdb.labels import (
    CLASS_OF_NAME,
    INTERACTION_CLASSES,
    LABEL_FOLDER,
    list_sequences,
    read_sequence,
)
from datasets.jrdb.splits import OFFICIAL_TEST, OFFICIAL_TRAIN, OFFICIAL_VAL, split_sequences
from tests.jrdb_files import crowd, person, write_labels
from utils.run.errors import CommandError, DataError

BOX = [10, 20, 30, 60]
FRAME = "000015.jpg"


def pair_labels(first: str, second: str) -> dict:
    """One frame with two people who name each other with these labels; "-" means no entry."""
    one = {} if first == "-" else {"pedestrian_2": first}
    two = {} if second == "-" else {"pedestrian_1": second}
    return {FRAME: [person(1, BOX, **one), person(2, BOX, **two)]}


def test_the_class_map_is_fixed():
    assert len(CLASS_OF_NAME) == 19
    assert [CLASS_OF_NAME[name] for name in INTERACTION_CLASSES[:4]] == [0, 1, 2, 3]
    assert set(CLASS_OF_NAME.values()) == set(range(5))
    assert CLASS_OF_NAME["moving together"] == CLASS_OF_NAME["hugging"] == 4


def test_people_without_a_group_are_of_group_minus_1(tmp_path):
    records = [person(k, BOX) for k in (1, 2, 3)]
    records[0].pop("social_group", None)
    records[1]["social_group"], records[2]["social_group"] = {"cluster_ID": None}, {"cluster_ID": 7}
    assert read_sequence(write_labels(tmp_path, "s", {FRAME: records})).groups.tolist() == [-1, -1, 7]


def test_columns_do_not_depend_on_the_order_of_the_file(tmp_path):
    labels = crowd()
    shuffled = {key: records[::-1] for key, records in reversed(labels.items())}
    one = read_sequence(write_labels(tmp_path / "a", "s", labels))
    two = read_sequence(write_labels(tmp_path / "b", "s", shuffled))
    assert one.keys == two.keys == ["000015.jpg", "000030.jpg", "000045.jpg", "000060.jpg"]
    assert one.track_names == [f"pedestrian:{i}" for i in (1, 2, 3, 4, 5, 6, 7, 10)]  # 10 after 7
    for column in ("times", "starts", "boxes", "tracks", "groups", "pairs", "types"):
        assert np.array_equal(getattr(one, column), getattr(two, column)), column
    assert (one.width, one.height) == (3760, 480)
    assert "no image" in one.size_source
    assert one.counts["missing_images"] == 4


@pytest.mark.parametrize(
    ("first", "second", "policy", "types", "counted"),
    [
        ("conversation", "conversation", "priority", [2], {}),
        ("conversation", "-", "priority", [2], {"one_sided_pairs": 1}),
        ("-", "hugging", "first", [4], {"one_sided_pairs": 1}),
        ("conversation", "walking together", "priority", [2], {"conflicting_pairs": 1}),
        ("walking together", "conversation", "first", [0], {"conflicting_pairs": 1}),
        ("walking together", "conversation", "drop", [-1], {"conflicting_pairs": 1, "untyped_pairs": 1}),
        ("standing together,conversation",) * 2 + ("priority", [2], {"multi_label_pairs": 1}),
        ("standing together,conversation",) * 2 + ("first", [1], {"multi_label_pairs": 1}),
        ("hugging,bending together", "hugging,bending together", "drop", [4], {"multi_label_pairs": 1}),
        ("", "", "priority", [], {"unnamed_annotations": 2}),
    ],
)  # fmt: skip
def test_two_sides_of_a_pair_are_merged_by_the_stated_rule(tmp_path, first, second, policy, types, counted):
    path = write_labels(tmp_path, "s", pair_labels(first, second))
    sequence = read_sequence(path, multi_label=policy)
    assert sequence.types.tolist() == types
    assert sequence.pairs.tolist() == [[0, 1]] * len(types)
    assert {
        key: value for key, value in sequence.counts.items() if value and key != "missing_images"
    } == counted


def test_missing_partners_and_duplicate_ids_are_counted(tmp_path):
    records = [
        person(1, BOX, pedestrian_9="hugging", pedestrian_1="hugging", pedestrian_2="hugging"),
        person(2, BOX),
        person(2, [50, 20, 30, 60], pedestrian_1="conversation"),
    ]
    sequence = read_sequence(write_labels(tmp_path, "s", {FRAME: records, "000030.jpg": []}))
    assert sequence.counts["missing_partners"] == 2
    assert sequence.counts["duplicate_ids"] == 1
    assert sequence.boxes.tolist() == [BOX, BOX]  # the first record stays
    assert sequence.types.tolist() == [4]
    assert sequence.starts.tolist() == [0, 2, 2]


def test_a_seam_box_and_a_fractional_box_are_read(tmp_path):
    path = write_labels(
        tmp_path, "s", {FRAME: [person(1, [3724, 172, 56, 98]), person(2, [0.1, 20, 30, 60.5])]}
    )
    boxes = read_sequence(path).boxes
    assert boxes[0].tolist() == [3724, 172, 56, 98]
    assert np.abs(boxes[1] - [0.1, 20, 30, 60.5]).max() <= 1 / 2048
    assert (boxes * 1024 == np.rint(boxes * 1024)).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("{not json", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("\xff", "no frames|not valid JSON"),
        ("[]", "no frames"),
        ('{"labels": {}}', "no frames"),
        ({FRAME: {}}, "000015.jpg holds dict"),
        ({FRAME: [], "000030.jpg": []}, "no person"),
        ({"../000015.jpg": []}, "leads out of its folder"),
        ({"/etc/000015.jpg": []}, "absolute"),
        ({"a\\000015.jpg": []}, "backslash"),
        ({"C:000015.jpg": []}, "absolute"),
        ({"0000\0015.jpg": []}, "control character"),
        ({"frame.jpg": []}, "frame name"),
        ({FRAME: [], "15.jpg": []}, "one number"),
        ({FRAME: [{"box": BOX}]}, "record 0\n  no label_id"),
        ({FRAME: [person(1, BOX), {"label_id": "pedestrian:2"}]}, "record 1\n  no box"),
        ({FRAME: ["text"]}, "no label_id"),
        ({FRAME: [person(1, [1, 2, 3])]}, "four numbers"),
        ({FRAME: [person(1, [1, 2, 3, "4"])]}, "four numbers"),
        ({FRAME: [person(1, [1, 2, 3, True])]}, "four numbers"),
        ({FRAME: [person(1, [float("nan"), 2, 3, 4])]}, "not finite"),
        ({FRAME: [person(1, [1, 2, float("inf"), 4])]}, "not finite"),
        ({FRAME: [person(1, [1, 2, 10**400, 4])]}, "not finite"),
        ({FRAME: [person(1, [1, 2, -3, 4])]}, "positive"),
        ({FRAME: [person(1, [1, 2, 3, 0])]}, "positive"),
        ({FRAME: [person(1, [-1, 2, 3, 4])]}, "negative"),
        ({FRAME: [person(1, [3760, 2, 3, 4])]}, "outside the 3760x480 panorama"),
        ({FRAME: [person(1, BOX) | {"H-interaction": [{"pair": 3}]}]}, "H-interaction"),
        ({FRAME: [person(1, BOX) | {"H-interaction": 7}]}, "H-interaction"),
        ({FRAME: [person(1, BOX) | {"social_group": {"cluster_ID": "x"}}]}, "cluster_ID"),
        (pair_labels("conversation", "walkin together"), "did you mean 'walking together'"),
    ],
)
def test_bad_input_is_one_clear_error(tmp_path, labels, message):
    path = write_labels(tmp_path, "cafe", labels)
    with pytest.raises(DataError, match=message) as error:
        read_sequence(path)
    assert str(path) in str(error.value)
    assert len(str(error.value).splitlines()) <= 5
    if isinstance(labels, dict) and FRAME in labels and any(labels.values()):
        assert FRAME in str(error.value)


def test_a_wrong_data_path_says_what_was_expected(tmp_path):
    with pytest.raises(CommandError, match=r"no such folder"):
        list_sequences(tmp_path / "nowhere")
    write_labels(tmp_path / "train_dataset_with_activity", "s", crowd())
    with pytest.raises(CommandError, match=r"pass --data_path .*train_dataset_with_activity"):
        list_sequences(tmp_path)
    assert list(list_sequences(tmp_path / "train_dataset_with_activity")) == ["s"]


def test_official_lists():
    assert (len(OFFICIAL_TRAIN), len(OFFICIAL_VAL), len(OFFICIAL_TEST)) == (20, 7, 27)
    assert len({*OFFICIAL_TRAIN, *OFFICIAL_VAL, *OFFICIAL_TEST}) == 54


def test_split_methods(tmp_path):
    names = [OFFICIAL_VAL[0], OFFICIAL_TRAIN[3], OFFICIAL_TRAIN[0]]
    split, source = split_sequences(names, tmp_path)
    assert split == {"train": sorted(names[1:]), "val": [OFFICIAL_VAL[0]], "test": []}
    assert "official" in source
    every = [f"s{i:02d}" for i in range(27)]
    split, _ = split_sequences(every[::-1], tmp_path, "sorted70")
    assert [len(split[part]) for part in ("train", "val", "test")] == [18, 4, 5]
    assert split["train"] + split["val"] + split["test"] == every
    own = tmp_path / "mine.json"
    own.write_text(json.dumps({"train": ["s01"], "val": ["s00"]}))
    assert split_sequences(every, tmp_path, str(own))[0] == {"train": ["s01"], "val": ["s00"], "test": []}
    own.rename(tmp_path / "split.json")
    split, source = split_sequences(every, tmp_path, "sorted70")
    assert split["train"] == ["s01"]
    assert "split.json" in source


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": ["a"], "val": ["z"]}, "without a label file"),
        ({"train": ["a"], "val": ["a"]}, "in both"),
        ({"train": ["a"], "val": []}, "empty"),
        ({"train": "a"}, "not a list"),
    ],
)
def test_bad_splits(tmp_path, content, message):
    (tmp_path / "split.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        split_sequences(["a", "b"], tmp_path)


def test_names_outside_the_official_lists_are_refused(tmp_path):
    with pytest.raises(DataError, match="in no official JRDB list"):
        split_sequences(["my-cafe", OFFICIAL_TRAIN[0]], tmp_path)
    with pytest.raises(DataError, match="the val split is empty"):
        split_sequences([OFFICIAL_TRAIN[0]], tmp_path)
    with pytest.raises(CommandError, match="--split_method"):
        split_sequences([OFFICIAL_TRAIN[0]], tmp_path, "random")


def test_real_sequences(real):
    files = list_sequences(real / "jrdb")
    sequences = {name: read_sequence(path, real / "jrdb") for name, path in files.items()}
    assert len(sequences) == 15
    assert sum(len(s.boxes) for s in sequences.values()) == 18654
    assert sum(len(s.pairs) for s in sequences.values()) == 5682
    assert sum(s.counts["multi_label_pairs"] for s in sequences.values()) == 750
    assert sequences["gates-ai-lab-2019-02-08_0"].image_found.sum() == 6
    assert {(s.width, s.height) for s in sequences.values()} == {(3760, 480)}
    assert LABEL_FOLDER.name in str(files["bytes-cafe-2019-02-07_0"])
