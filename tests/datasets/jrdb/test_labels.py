"""Reading label files: columns, merging, splits, and one clear error for every kind of bad input."""

import json
from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

from datasets.jrdb.boxes import read_boxes
from datasets.jrdb.check import tell_counts
from datasets.jrdb.classes import CLASS_OF_NAME, INTERACTION_CLASSES
from datasets.jrdb.flags import LabelRules
from datasets.jrdb.frames import frame_number
from datasets.jrdb.labels import IMAGE_FOLDER, LABEL_FOLDER, read_sequences
from datasets.jrdb.pairs import PairRules, find_pairs
from datasets.jrdb.splits import OFFICIAL, list_sequences, split_sequences
from datasets.splits import read_split
from tests.jrdb_files import crowd, person, read, write_labels
from utils.run.errors import CommandError, DataError

BOX = [10, 20, 30, 60]
FRAME = "000015.jpg"


def pair_labels(first: str, second: str) -> dict:
    """One frame with two people who name each other with these labels; "-" means no entry."""
    one = {} if first == "-" else {"pedestrian_2": first}
    two = {} if second == "-" else {"pedestrian_1": second}
    return {FRAME: [person(1, BOX, **one), person(2, BOX, **two)]}


def test_the_class_map_is_fixed():
    assert len(CLASS_OF_NAME) == 21
    assert CLASS_OF_NAME["standing together together"] == 1 and CLASS_OF_NAME["pointing at sth together"] == 4
    assert [CLASS_OF_NAME[name] for name in INTERACTION_CLASSES[:4]] == [0, 1, 2, 3]
    assert set(CLASS_OF_NAME.values()) == set(range(5))
    assert CLASS_OF_NAME["moving together"] == CLASS_OF_NAME["hugging"] == 4


@pytest.mark.parametrize(
    ("once", "twice"),
    [
        ('"000030.jpg": [', '"000015.jpg": ['),
        ('"H-interaction": [{', '"H-interaction": [], "H-interaction": [{'),
        ('"box": [', '"box" : [1, 2, 3, 4], "box": ['),
        ('"conversation": 1', '"conversation": 1, "conversation": 0'),
        ('{"labels": {', '{"labels": {"000000.jpg": [{"label_id": 1, "box": [1, 2, 3, 4]}]}, "labels": {'),
    ],
)
def test_a_repeated_key_is_refused_as_only_the_last_would_count(tmp_path, once, twice):
    text = json.dumps({"labels": crowd(2)})
    assert len(read(write_labels(tmp_path, "s", text)).boxes) == 16 and once in text
    with pytest.raises(
        DataError, match=f"not valid JSON.*\n.*s.json: the key '{twice.split(chr(34))[-2]}' st"
    ):
        read(write_labels(tmp_path, "s", text.replace(once, twice)))


def test_people_of_unknown_group_are_of_group_minus_1_and_loners_of_their_own(tmp_path):
    records = [person(k, BOX) for k in (1, 2, 3)]
    records[0].pop("social_group", None)
    records[1]["social_group"], records[2]["social_group"] = {"cluster_ID": None}, {"cluster_ID": 7.0}
    records.append(person(4, BOX) | {"social_group": {"cluster_ID": float("nan")}})  # as pandas writes
    records.append(person(5, BOX) | {"social_group": {"cluster_stat": 1}})
    records += [person(k, BOX, group) for k, group in ((6, -2), (7, -1))]
    assert read(write_labels(tmp_path, "s", {FRAME: records})).social_groups.tolist() == [
        -1, -1, 7, -1, -1, -7, -8,
    ]  # fmt: skip


def test_columns_do_not_depend_on_the_order_of_the_file(tmp_path):
    labels = crowd()
    shuffled = {key: records[::-1] for key, records in reversed(labels.items())}
    one = read(write_labels(tmp_path / "a", "s", labels))
    two = read(write_labels(tmp_path / "b", "s", shuffled))
    assert one.keys == two.keys == ["000015.jpg", "000030.jpg", "000045.jpg", "000060.jpg"]
    assert one.track_names == [f"pedestrian:{i}" for i in (1, 2, 3, 4, 5, 6, 7, 10)]  # 10 after 7
    for column in ("times", "starts", "boxes", "tracks", "social_groups", "pairs", "types"):
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
    sequence = read(path, rules=LabelRules(multi_label=policy))
    assert sequence.types.tolist() == types
    assert sequence.pairs.tolist() == [[0, 1]] * len(types)
    assert {
        key: value for key, value in sequence.counts.items() if value and key != "missing_images"
    } == counted


@pytest.mark.parametrize("policy", ["priority", "first", "drop"])
def test_a_label_that_is_too_difficult_does_not_decide_the_type(tmp_path, policy):
    labels = pair_labels("hugging,walking together", "walking together,hugging")
    for record in labels[FRAME]:
        record["H-interaction"][0]["inter_labels"]["hugging"] = 3
    path = write_labels(tmp_path, "s", labels)
    assert read(path, rules=LabelRules(multi_label=policy, max_difficulty=2)).types.tolist() == [0]
    assert read(path, rules=LabelRules(multi_label=policy)).types.tolist() != [0]


def test_missing_partners_and_duplicate_ids_are_counted(tmp_path, caplog):
    records = [
        person(1, BOX, pedestrian_9="hugging", pedestrian_1="hugging", pedestrian_2="hugging"),
        person(2, BOX),
        person(2, [50, 20, 30, 60], pedestrian_1="conversation"),
        person(3, BOX) | {"label_id": "car:3"},
    ]
    sequence = read(write_labels(tmp_path, "s", {FRAME: records, "000030.jpg": []}))
    assert sequence.counts["missing_partners"] == 2
    assert sequence.counts["duplicate_ids"] == sequence.counts["other_objects"] == 1
    assert sequence.boxes.tolist() == [BOX, BOX]  # the first record stays
    assert sequence.types.tolist() == [4]
    assert sequence.starts.tolist() == [0, 2, 2]
    caplog.set_level("INFO", "run")
    tell_counts([sequence], "labels", "")
    told = "labels: 2 missing partners, 1 duplicate ids, 1 other objects, 1 panoramas without an image"
    assert told in caplog.text
    assert "s: records of car are left out, not pedestrian" in caplog.text
    assert (
        "s: many interactions with nobody of the frame: are `pair` and the other's `label_id` wri"
        in caplog.text
    )


@pytest.mark.parametrize(("ids", "people"), [(["track:1", "track:2"], 2), (["1", "car:2"], 1)])
def test_ids_of_people_may_have_another_prefix(tmp_path, ids, people):
    records = [person(1, BOX) | {"label_id": ids[0]}, person(2, [50, 20, 30, 60]) | {"label_id": ids[1]}]
    assert len(read(write_labels(tmp_path, "s", {FRAME: records})).boxes) == people


def test_several_kinds_of_objects_are_not_people_without_a_word(tmp_path):
    """Neither in training nor in prediction."""
    records = [person(1, BOX) | {"label_id": "car:1"}, person(2, BOX) | {"label_id": "bike:2"}]
    path = write_labels(tmp_path, "s", {FRAME: records})
    with pytest.raises(DataError, match="(?s)s.json: none of the classes bike, car is .*pedestrian:5 or 5"):
        read(path)
    flags = Namespace(frame_rate=15.0, boxes_size=None, skip_bad_boxes=False)
    with pytest.raises(DataError, match="s.json: none of the classes bike, car is"):
        read_boxes(tmp_path, path, flags)


def test_sequences_without_interactions_among_others_are_told(tmp_path, caplog):
    """Such as files of JRDB-Act beside those of JRDB-Social, whose pairs are not known."""
    path = write_labels(tmp_path, "social", crowd(1))
    act = write_labels(tmp_path, "act", {FRAME: [{"label_id": "pedestrian:1", "box": BOX}]})
    tell_counts(read_sequences([path, path]) + [read(act)], "labels", "")
    assert "act: nobody interacts, unlike in the other sequences: leave it out if" in caplog.text
    caplog.clear()
    for paths in ([act, act], [path]):  # boxes alone, and annotations of all
        tell_counts(read_sequences(paths), "labels", "")
    assert "nobody interacts" not in caplog.text


def test_a_seam_box_and_a_fractional_box_are_read(tmp_path):
    path = write_labels(
        tmp_path, "s", {FRAME: [person(1, [3724, 172, 56, 98]), person(2, [0.1, 20, 30, 60.5])]}
    )
    boxes = read(path).boxes
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
        ({FRAME: {}}, "000015.jpg is a dict"),
        ({FRAME: [], "000030.jpg": []}, "no person"),
        ({"../000015.jpg": []}, "leads out of its folder"),
        ({"/etc/000015.jpg": []}, "absolute"),
        ({"a\\000015.jpg": []}, "backslash"),
        ({"C:000015.jpg": []}, "absolute"),
        ({"0000\0015.jpg": []}, "control character"),
        ({"frame.jpg": []}, "frame name"),
        ({FRAME: [], "15.jpg": []}, "the same number"),
        ({FRAME: [{"box": BOX}]}, "no label_id .*\n.*record 0"),
        ({FRAME: [person(1, BOX), {"label_id": "pedestrian:2"}]}, "no box .*\n.*record 1"),
        ({FRAME: ["text"]}, "no label_id"),
        ({FRAME: [person(-1, BOX), person(-1, BOX)]}, "no label_id .*2 times.*\n.*record 0: pedestrian:-1"),
        ({FRAME: [person(1, BOX) | {"label_id": [1]}]}, r"no label_id .*\n.*record 0: \[1\]"),
        ({"PXL_20240311_101500123.jpg": []}, "frame name without a number.*\n.*\n.*no time"),
        ({FRAME: [person(1, [1, 2, 3])]}, "four finite numbers"),
        ({FRAME: [person(1, [1, 2, 3, "4"])]}, "four finite numbers"),
        ({FRAME: [person(1, [1, 2, 3, True])]}, "four finite numbers"),
        ({FRAME: [person(1, [float("nan"), 2, 3, 4])]}, "four finite numbers"),
        ({FRAME: [person(1, [1, 2, float("inf"), 4])]}, "four finite numbers"),
        ({FRAME: [person(1, [1, 2, 10**400, 4])]}, "four finite numbers"),
        ({FRAME: [person(1, [1, 2, -3, 4])]}, "positive"),
        ({FRAME: [person(1, [1, 2, 3, 0])]}, "positive"),
        ({FRAME: [person(1, [-3, 2, 3, 4])]}, "outside the 3760x480 panorama"),
        ({FRAME: [person(1, [1, -5, 3, 4])]}, "outside the 3760x480 panorama"),
        ({FRAME: [person(1, [1, 480, 3, 4])]}, "outside the 3760x480 panorama"),
        ({FRAME: [person(1, [3760, 2, 3, 4])]}, "outside the 3760x480 panorama"),
        ({FRAME: [person(1, [0, 2, 3761, 4])]}, "outside the 3760x480 panorama"),
        ({FRAME: [person(1, BOX) | {"H-interaction": [{"pair": 3}]}]}, "H-interaction"),
        ({FRAME: [person(1, BOX) | {"H-interaction": 7}]}, "H-interaction"),
        (
            {
                FRAME: [
                    person(1, BOX)
                    | {"H-interaction": [{"pair": "pedestrian:2", "inter_labels": {"hugging": "perhaps"}}]}
                ]
            },
            "H-interaction",
        ),
        (
            {FRAME: [person(1, BOX) | {"H-interaction": [{"pair": "2", "inter_labels": {"hugging": 4}}]}]},
            r"H-interaction(.|\n)*1 to 3",
        ),
        ({FRAME: [person(1, BOX) | {"label_id": "pedestrian"}]}, "no label_id"),
        ({FRAME: [person(1, BOX) | {"box": None}]}, r"four finite numbers(.|\n)*\n  correct the boxes"),
        ({FRAME: [person(1, [0.1, 0.3, 0.02, 0.4])]}, "within one pixel, as if in fractions"),
        ({FRAME: [person(1, BOX) | {"social_group": {"cluster_ID": "x"}}]}, "social_group in another"),
        ({FRAME: [person(1, BOX) | {"social_group": {"cluster_ID": 10**30}}]}, "social_group in another"),
        ({FRAME: [person(1, BOX) | {"social_group": {"cluster_ID": [3, 5]}}]}, "social_group in another"),
        ({FRAME: [person(1, BOX) | {"social_group": {"cluster_id": 3}}]}, "social_group in another"),
        (pair_labels("conversation", "walkin together"), "did you mean walking together"),
    ],
)
def test_bad_input_is_one_clear_error(tmp_path, labels, message):
    path = write_labels(tmp_path, "cafe", labels)
    with pytest.raises(DataError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)
    assert len(str(error.value).splitlines()) <= 5
    if isinstance(labels, dict) and FRAME in labels and any(labels.values()):
        assert FRAME in str(error.value)


def test_every_problem_of_every_file_is_in_one_error(tmp_path):
    bad = person(2, BOX, pedestrian_1="flying together,playing cards")
    for name in ("attic", "cellar"):
        write_labels(tmp_path, name, {FRAME: [person(1, [1, 2, -3, 4]), bad, {"box": BOX}]})
    paths = [*list_sequences(tmp_path).values(), write_labels(tmp_path, "hall", "{")]
    with pytest.raises(DataError) as error:
        read_sequences(paths, tmp_path)
    text = str(error.value)
    for line in (
        "5 kinds", "unknown interaction name 'flying together'; did you mean", "'playing cards' (2 times)",
        "--class_map", "exceeds the width) (2 times)", "--skip_bad_boxes", "no label_id (2 times)",
        f"{paths[0]}: frame 000015.jpg, pedestrian:1, box [1, 2, -3, 4]",
        "a file that is not valid JSON or cannot be read (1 time)",
    ):  # fmt: skip
        assert line in text, line


def test_a_class_map_names_what_the_published_list_does_not(tmp_path):
    path = write_labels(tmp_path, "s", pair_labels("playing cards", "playing cards"))
    classes = tmp_path / "classes.json"
    classes.write_text('{"playing cards": "sitting together"}')
    assert read(path, rules=LabelRules(class_map=str(classes))).types.tolist() == [3]
    classes.write_text('{"*": "others"}')
    assert read(path, rules=LabelRules(class_map=str(classes))).types.tolist() == [4]
    classes.write_text('{"playing cards": "gambling"}')
    with pytest.raises(CommandError, match="no such class for 'playing cards': 'gambling'"):
        read(path, rules=LabelRules(class_map=str(classes)))
    classes.write_text('{"others": ["playing cards"]}')  # the wrong way round
    with pytest.raises(CommandError, match=r"no such class for 'others': \['playing cards'\]"):
        read(path, rules=LabelRules(class_map=str(classes)))
    classes.write_text('{"playing cards": "others", "playing cards": "conversation"}')
    with pytest.raises(CommandError, match="the key 'playing cards' stands twice"):
        read(path, rules=LabelRules(class_map=str(classes)))
    with pytest.raises(CommandError, match=r"cannot read .*\n--class_map is a JSON file of"):
        read(path, rules=LabelRules(class_map=str(tmp_path / "none.json")))


def test_a_name_with_the_value_0_is_no_label(tmp_path):
    labels = pair_labels("hugging,conversation", "hugging")
    one, two = (record["H-interaction"][0]["inter_labels"] for record in labels[FRAME])
    one["hugging"] = two["hugging"] = 0
    sequence = read(write_labels(tmp_path, "s", labels))
    assert sequence.types.tolist() == [2]
    assert sequence.counts["one_sided_pairs"] == sequence.counts["unnamed_annotations"] == 1
    for no_label in (False, "0", None, float("nan")):
        one["hugging"] = two["hugging"] = no_label
        assert read(write_labels(tmp_path, "s", labels)).types.tolist() == [2]
    one["conversation"] = 0
    assert len(read(write_labels(tmp_path, "s", labels)).pairs) == 0


def test_pairs_from_social_groups_and_nobodys_group(tmp_path):
    labels = {FRAME: [person(k, BOX, group) for k, group in enumerate([4, 4, -1, -1, 4, 7])]}
    path = write_labels(tmp_path, "s", labels)
    sequence = read(path, rules=LabelRules(pairs_from="social_group"))
    assert sequence.pairs.tolist() == [[0, 1], [0, 4], [1, 4]] and set(sequence.types.tolist()) == {-1}
    assert sequence.social_groups.tolist() == [4, 4, -4, -5, 4, 7]
    assert len(read(path).pairs) == 0


def test_a_picture_without_a_number_beside_them_does_not_hide_images_of_another_ending(tmp_path):
    path = write_labels(tmp_path, "s", {"000015.jpg": [person(1, BOX)]})
    (tmp_path / IMAGE_FOLDER / "s").mkdir(parents=True)
    for name in ("000015.png", "map.png", "plan.png"):
        Image.new("L", (3760, 480)).save(tmp_path / IMAGE_FOLDER / "s" / name)
    assert read(path, tmp_path).keys == ["000015.png"]
    Image.new("L", (40, 40)).save(tmp_path / IMAGE_FOLDER / "s" / "000015_mask.png")
    with pytest.raises(DataError, match="two images with the same number.*\n.*15.png and 000015_mask.png"):
        read(path, tmp_path)
    Image.new("L", (3760, 480)).save(tmp_path / IMAGE_FOLDER / "s" / "000015.jpg")
    (sequence,) = read_sequences([path], tmp_path)
    assert sequence.keys == ["000015.jpg"] and sequence.size_source == "s/000015.jpg"


def test_images_of_another_ending_are_those_of_the_frame(tmp_path):
    path, folder = write_labels(tmp_path, "a", crowd(2)), tmp_path / IMAGE_FOLDER / "a"
    folder.mkdir(parents=True)
    for name in ("000015.png", "000030.JPG"):
        Image.new("RGB", (3760, 480)).save(folder / name)
    (folder / "000000.jpg").write_bytes(b"cut off")  # of no labelled frame
    sequence = read(path, tmp_path)
    assert sequence.keys == ["000015.png", "000030.JPG"] and sequence.image_found.all()
    assert sequence.size_source == "a/000015.png"
    for name in sequence.keys:
        (folder / name).write_bytes(b"cut off")
    with pytest.raises(DataError, match="no image can be read .*\n.*a/0000.*cut off"):
        read(path, tmp_path)


def test_boxes_are_wrapped_and_clipped_and_counted_or_left_out(tmp_path):
    boxes = [[1, 2, 0, 5], [-8.5, 20, 60, 100], [10, -20, 60, 100], [20, 400, 60, 100], [-3, 600, 5, 5]]
    records = [person(k, box, pedestrian_4="hugging", pedestrian_3="hugging") for k, box in enumerate(boxes)]
    path = write_labels(tmp_path, "s", {FRAME: records, "000030.jpg": records[1:3]})
    with pytest.raises(DataError, match="2 kinds"):
        read(path)
    sequence = read(path, rules=LabelRules(skip_bad_boxes=True))
    assert sequence.boxes[:3].tolist() == [[3751.5, 20, 60, 100], [10, 0, 60, 80], [20, 400, 60, 80]]
    assert [sequence.counts[f"{what}_boxes"] for what in ("wrapped", "clipped", "skipped")] == [2, 3, 2]
    assert sequence.starts.tolist() == [0, 3, 5]
    assert [sequence.track_names[k] for k in sequence.tracks] == [f"pedestrian:{k}" for k in (1, 2, 3, 1, 2)]
    assert sequence.pairs.tolist() == [[0, 2], [1, 2]]  # those with people left out are gone


def test_difficult_labels_do_not_count(tmp_path):
    labels = crowd(1)
    labels[FRAME][0]["H-interaction"][0]["inter_labels"]["walking together"] = 3
    one_side = find_pairs(
        read(write_labels(tmp_path, "s", labels), rules=LabelRules(max_difficulty=2)), PairRules()
    )
    labels[FRAME][1]["H-interaction"][0]["inter_labels"]["walking together"] = 3
    labels[FRAME][5]["social_group"]["cluster_stat"] = 3
    path, rules = write_labels(tmp_path, "s", labels), LabelRules(max_difficulty=2)
    easy = find_pairs(read(path, rules=rules), PairRules())
    every = find_pairs(read(path), PairRules())
    assert every.counts["positives_total"] == easy.counts["positives_total"] + 1
    assert one_side.counts["positives_total"] == every.counts["positives_total"]  # one easy label is enough

    def samples(found):
        return {
            tuple(sorted(pair))
            for pair in zip(found.samples["left"].tolist(), found.samples["right"].tolist(), strict=True)
        }

    assert samples(every) - samples(easy) == {(0, 1), (4, 5)}  # the pair 1-2, and all of person 6


def test_a_number_anywhere_in_a_frames_name(tmp_path):
    labels = {"cam2_IMG_0030.jpg": [person(1, BOX)], "IMG_0004.PNG": [person(1, BOX)]}
    sequence = read(write_labels(tmp_path, "s", labels), rules=LabelRules(frame_rate=30))
    assert sequence.keys == ["IMG_0004.PNG", "cam2_IMG_0030.jpg"] and sequence.times.tolist() == [4, 30]
    assert frame_number("IMG_0030_jpg.rf.3f9a2b7c1d0e4f5a6b7c8d9e0f1a2b44.jpg") == 30  # Roboflow
    for time in ("IMG_20240311_101500.jpg", "2024-03-11 10.15.00.png", "2024-03-11T10-15-00"):
        assert frame_number(time) is None
    for name in ("cafe-2019-02-07_000015.jpg", "20240311_101500_0015.jpg", "cafe-2019-02-07_0_101500.jpg"):
        assert frame_number(name) == int(name[:-4].rpartition("_")[2])


def test_images_counted_from_another_number_than_labels(tmp_path):
    (folder := tmp_path / IMAGE_FOLDER / "s").mkdir(parents=True)
    for number in range(1, 4):
        Image.new("L", (3760, 480)).save(folder / f"{number:06d}.jpg")
    path = write_labels(tmp_path, "s", {f"{number:06d}.jpg": [person(1, BOX)] for number in range(3)})
    with pytest.raises(DataError, match="one off.*\n.*frames 0 to 2, images 1 to 3\n.*add 1 to each"):
        read(path, tmp_path)


@pytest.mark.parametrize("labels", ["{", '{"labels": {}}', {"frame.jpg": []}])
def test_a_file_without_frames_is_one_clear_error_beside_images_too(tmp_path, labels):
    (folder := tmp_path / IMAGE_FOLDER / "s").mkdir(parents=True)
    Image.new("L", (3760, 480)).save(folder / FRAME)
    with pytest.raises(DataError, match="not valid JSON|no frames|without a number"):
        read(write_labels(tmp_path, "s", labels), tmp_path)


def test_a_missing_keyframe_image_among_images_of_every_frame_is_only_missing(tmp_path):
    (folder := tmp_path / IMAGE_FOLDER / "s").mkdir(parents=True)
    for number in set(range(100)) - {30}:
        Image.new("L", (3760, 480)).save(folder / f"{number:06d}.jpg")
    keyframes = {f"{number:06d}.jpg": [person(1, BOX)] for number in (15, 30, 45, 60)}
    sequence = read(write_labels(tmp_path, "s", keyframes), tmp_path)
    assert sequence.image_found.tolist() == [True, False, True, True]


def test_a_wrong_data_path_says_what_was_expected(tmp_path):
    with pytest.raises(CommandError, match=r"no such folder"):
        list_sequences(tmp_path / "nowhere")
    write_labels(tmp_path / "train_dataset_with_activity", "s", crowd())
    with pytest.raises(CommandError, match=r"pass --data_path .*train_dataset_with_activity"):
        list_sequences(tmp_path)
    assert list(list_sequences(tmp_path / "train_dataset_with_activity")) == ["s"]
    boxes = tmp_path / "boxes" / "labels" / "labels_2d_stitched"
    boxes.mkdir(parents=True)
    (boxes / "s.json").write_text("{}")
    with pytest.raises(
        CommandError, match=r"(?s)holds labels_2d_stitched, but .*says who interacts.*predict"
    ):
        list_sequences(tmp_path / "boxes")


def test_official_lists():
    lists = read_split(OFFICIAL)
    assert [len(names) for names in lists.values()] == [20, 7, 27] and len(set(sum(lists.values(), []))) == 54


def test_split_methods(tmp_path):
    lists = read_split(OFFICIAL)
    names = [lists["val"][0], lists["train"][3], lists["train"][0]]
    split, source = split_sequences(names, tmp_path)
    assert split == {"train": sorted(names[1:]), "val": names[:1], "test": []}
    assert "official" in source
    every = [f"s{i:02d}" for i in range(27)]
    split, _ = split_sequences(every[::-1], tmp_path, "sorted70")
    assert [len(split[part]) for part in ("train", "val", "test")] == [18, 4, 5]
    assert split["train"] + split["val"] + split["test"] == every
    own = tmp_path / "mine.json"
    own.write_text(json.dumps({"train": ["s01"], "val": ["s00"]}))
    assert split_sequences(every, tmp_path, str(own))[0] == {"train": ["s01"], "val": ["s00"], "test": []}
    own.rename(tmp_path / "split.json")
    split, source = split_sequences(every, tmp_path)
    assert split["train"] == ["s01"] and source == "split.json in the data folder"
    assert split_sequences(every, tmp_path, "sorted70")[0]["train"] == every[:18]  # what is typed wins


def test_sequences_in_no_part_of_the_split_are_counted(tmp_path, caplog):
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a"], "val": ["b"]}))
    split_sequences("ab", tmp_path)
    assert not caplog.text
    split_sequences("abcd", tmp_path)
    assert "2 of 4 sequences are in no part of split.json in the data folder: c, d" in caplog.text


def test_a_typed_fold_wins_over_the_folders_own_split(tmp_path):
    names = ["a", "b", "c"]
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a", "b"], "val": ["c"]}))
    for k, held in enumerate(names):
        fold = tmp_path / f"fold{k}.json"
        fold.write_text(json.dumps({"train": [n for n in names if n != held], "val": [held]}))
        split, source = split_sequences(names, tmp_path, str(fold))
        assert split["val"] == [held] and source == f"--split_method {fold}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": ["a"], "val": ["z"]}, "val names 1 sequence without a label file: z"),
        ({"train": ["a"], "val": ["a"]}, "in both"),
        ({"train": ["a"], "val": []}, "empty"),
        ({"train": "a", "val": []}, "not a list"),
    ],
)
def test_bad_splits(tmp_path, content, message):
    (tmp_path / "split.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        split_sequences(["a", "b"], tmp_path)


def test_names_outside_the_official_lists_are_refused(tmp_path):
    with pytest.raises(DataError, match="in no official JRDB list"):
        split_sequences(["my-cafe", "bytes-cafe-2019-02-07_0"], tmp_path)
    ways = {
        1: "add sequences",
        2: "add sequences or a split.json",
        3: "add .* split.json, or pass --fold 1/3",
    }
    for count, way in ways.items():  # that help with so few
        with pytest.raises(DataError, match=f"the val split is empty.*\n  {way}$"):
            split_sequences(read_split(OFFICIAL)["train"][:count], tmp_path)
    with pytest.raises(CommandError, match="--split_method"):
        split_sequences(["bytes-cafe-2019-02-07_0"], tmp_path, "random")


def test_real_sequences(real, caplog):
    files = list_sequences(real / "jrdb")
    sequences = {name: read(path, real / "jrdb") for name, path in files.items()}
    assert len(sequences) == 15
    assert sum(len(s.boxes) for s in sequences.values()) == 18654
    assert sum(len(s.pairs) for s in sequences.values()) == 5682
    assert sum(s.counts["multi_label_pairs"] for s in sequences.values()) == 750
    assert sequences["gates-ai-lab-2019-02-08_0"].image_found.sum() == 6
    assert {(s.width, s.height) for s in sequences.values()} == {(3760, 480)}
    tell_counts([*sequences.values()], "labels", "nothing is wrong with them")
    assert not caplog.text
    assert LABEL_FOLDER.name in str(files["bytes-cafe-2019-02-07_0"])


def test_ids_groups_and_difficulties_may_be_numbers_or_text(tmp_path):
    """6, 6.0 and "6" are pedestrian:6; "2" is 2. An empty H-interaction leaves HHI to say who interacts."""
    labels = crowd(1)
    labels[FRAME][5]["social_group"]["cluster_stat"] = 3
    rules = LabelRules(max_difficulty=2)
    plain = read(write_labels(tmp_path / "a", "s", labels), rules=rules)
    for k, record in enumerate(labels[FRAME]):
        number = record["label_id"].removeprefix("pedestrian:")
        record["label_id"] = (int(number), number, f" pedestrian:{number} ", float(number))[k % 4]
        record["HHI"], record["H-interaction"] = record["H-interaction"], []
        for entry in record["HHI"]:
            entry["pair"] = (int, float)[k % 2](entry["pair"].removeprefix("pedestrian:"))
        group = record["social_group"]
        record["social_group"] = {
            "cluster_ID": f"{group['cluster_ID']}",
            "cluster_stat": str(group["cluster_stat"]),
        }
    other = read(write_labels(tmp_path / "b", "s", labels), rules=rules)
    by_number = [
        sorted(range(8), key=lambda row: int(s.track_names[s.tracks[row]].split(":")[-1]))
        for s in (plain, other)
    ]
    for column in ("boxes", "social_groups", "difficult"):
        one, two = (getattr(s, column)[order] for s, order in zip((plain, other), by_number, strict=True))
        assert np.array_equal(one, two), column
    pairs = [
        sorted(
            tuple(sorted(s.boxes[list(pair), 0])) + (kind,)
            for pair, kind in zip(s.pairs, s.types.tolist(), strict=True)
        )
        for s in (plain, other)
    ]
    assert pairs[0] == pairs[1] and len(pairs[0]) == 3 and plain.difficult.any()


def test_a_difficulty_that_is_none_is_refused(tmp_path):
    labels = crowd(1)
    labels[FRAME][5]["social_group"]["cluster_stat"] = "hard"
    with pytest.raises(DataError, match="social_group in another form.*\n.*'hard'\n?.*\n.*cluster_stat"):
        read(write_labels(tmp_path, "s", labels))


def test_what_macos_leaves_beside_files_is_not_read(tmp_path):
    write_labels(tmp_path, "s", crowd(1))
    (tmp_path / LABEL_FOLDER / "._s.json").write_bytes(b"\0\5\26\7")
    write_labels(tmp_path, "t", crowd(1)).rename(tmp_path / LABEL_FOLDER / "t.JSON")
    assert list(list_sequences(tmp_path)) == ["s", "t"]
    images = tmp_path / IMAGE_FOLDER / "s"
    images.mkdir(parents=True)
    (images / "._000015.jpg").write_bytes(b"\0\5\26\7")
    Image.new("RGB", (3760, 480)).save(images / FRAME)
    sequence = read(list_sequences(tmp_path)["s"], tmp_path)
    assert sequence.image_found.tolist() == [True] and sequence.size_source == f"s/{FRAME}"
