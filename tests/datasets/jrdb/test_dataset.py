"""The data sets of pairs: what is sampled, what is kept out, batches, and the sampling report."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.augmentation import uniform
from datasets.jrdb import augmentation
from datasets.jrdb.geometry import mirror_features
from datasets.jrdb.labels import IMAGE_FOLDER, LABEL_FOLDER
from tests.jrdb_files import crowd, load, person, write_labels
from utils.metrics.jrdb_act import keyframe_rows
from utils.plotting.panorama import look_at_pair
from utils.report.interaction import report_groups
from utils.run.errors import DataError


@pytest.fixture
def folder(tmp_path):
    """Three sequences of the crowd scene, one per split."""
    for down, name in enumerate(("a", "b", "c")):
        write_labels(tmp_path, name, crowd(frames=6), down)
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a"], "val": ["b"], "test": ["c"]}))
    return tmp_path


def named_samples(dataset, epoch: int = 1) -> dict[tuple, tuple]:
    """(frame, left id, right id) -> (label, type, inferred) of the samples of an epoch."""
    dataset = dataset.select(dataset.draw(epoch))
    keys = zip(
        dataset.frame_keys[dataset.frames].tolist(),
        dataset.person_ids[dataset.left].tolist(),
        dataset.person_ids[dataset.right].tolist(),
        strict=True,
    )
    values = zip(dataset.labels.tolist(), dataset.types.tolist(), dataset.inferred.tolist(), strict=True)
    return dict(zip(keys, values, strict=True))


def first_frame(dataset) -> dict[tuple[int, int], tuple]:
    """The samples of frame 15 by pedestrian numbers, left one first."""
    return {
        (int(a.split(":")[1]), int(b.split(":")[1])): value
        for (frame, a, b), value in named_samples(dataset).items()
        if frame == "000015.jpg"
    }


def test_val_holds_every_pair_in_range_but_the_ambiguous_ones(folder):
    sets = load(folder)
    assert first_frame(sets.val) == {
        (1, 2): (1, 0, False),
        (2, 3): (1, 2, False),  # 1-3 is in their group without being annotated: ambiguous
        (2, 4): (0, -1, False),
        (3, 4): (0, -1, False),
        (6, 5): (0, -1, False),
        (7, 1): (0, -1, False),  # across the seam
        (10, 1): (0, -1, False),
        (10, 2): (0, -1, False),  # 7-10 share a social group: ambiguous
    }
    assert len(sets.val.far_types) == 6  # 4-5, once per frame
    assert set(sets.val.far_types.tolist()) == {3}
    assert (sets.val.sample_sequences == 0).all()
    assert len(sets.val.boxes) == 48


def test_a_perfect_scorer_finds_every_group_although_some_pairs_have_no_label(tmp_path):
    """3-4 and one of 5-6-7 share a social group without being annotated: their pairs count as the rest."""
    scene = [
        person(1, [0, 100, 40, 100], 1, pedestrian_2="conversation"),
        person(2, [50, 100, 40, 100], 1),
        person(3, [400, 100, 40, 100], 2),
        person(4, [450, 100, 40, 100], 2),
        person(5, [900, 100, 40, 100], 3, pedestrian_6="conversation"),
        person(6, [950, 100, 40, 100], 3),
        person(7, [1000, 100, 40, 100], 3),
        person(8, [1100, 100, 40, 100], 4),
    ]
    for down, name in enumerate(("a", "b")):
        write_labels(tmp_path, name, {f"{k:06d}.jpg": scene for k in (0, 15, 30)}, down)
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a"], "val": ["b"]}))
    part = load(tmp_path).all_in_range("val")
    together = part.social_groups[part.left] == part.social_groups[part.right]
    state = {"stage1_threshold": 0.5}
    found, _ = report_groups(part, together.astype(float), state, part.sequences)
    for how in ("clusters", "connected components"):
        whole = found["groups"][how]["whole"]
        assert [(whole[size]["ap"], whole[size]["matched"]) for size in ("G1", "G2", "G3")] == [
            (1.0, 3), (1.0, 6), (1.0, 3),
        ]  # fmt: skip
    assert found["warnings"] == []


@pytest.mark.parametrize("start", [15, 16])
def test_people_without_a_group_count_alike_however_they_are_written(tmp_path, start):
    found = []
    for how in range(3):
        labels = crowd(start=start)
        for records in labels.values():
            records[5]["social_group"]["cluster_ID"] = [3, -1, None][how]
        for down, name in enumerate(("a", "b")):
            write_labels(tmp_path, name, labels, down)
        (tmp_path / "split.json").write_text(json.dumps({"train": ["a"], "val": ["b"]}))
        part = load(tmp_path).all_in_range("val")
        found.append(report_groups(part, part.labels * 0.9, {"stage1_threshold": 0.5}, part.sequences)[0])
    assert found[0] == found[1]
    assert ("28 of 32 people are judged" in str(found)) and "G1" in str(found[2]["groups"])
    off = "JRDB-Act's figures: only 0 of 32 people are on keyframes"
    assert (off in str(found[0]["warnings"])) == (start == 16)


def test_clusters_that_are_worse_than_everybody_alone_are_a_warning(tmp_path):
    strangers = [person(k, [100 + 50 * k, 100, 40, 100], k) for k in (1, 2, 3)]
    scene = [
        *strangers,
        *(
            person(k, [900 + 50 * k, 100, 40, 100], 4, **{f"pedestrian_{9 - k}": "conversation"})
            for k in (4, 5)
        ),
    ]
    for down, name in enumerate(("a", "b")):
        write_labels(tmp_path, name, {f"{k:06d}.jpg": scene for k in (0, 15, 30)}, down)
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a"], "val": ["b"]}))
    part = load(tmp_path).all_in_range("val")
    state = {"stage1_threshold": 0.5}
    everybody, _ = report_groups(part, np.ones(len(part.left)), state, part.sequences)
    assert everybody["warnings"] == ["social groups: everybody alone is better than the clusters (task 3)"]


def test_train_takes_inferred_positives_and_few_negatives(folder):
    sets = load(folder, max_negatives_per_frame=2)
    samples = first_frame(sets.train)
    assert samples.pop((1, 3)) == (1, -1, True)
    assert samples.pop((1, 2)) == (1, 0, False)
    assert samples.pop((2, 3)) == (1, 2, False)
    assert len(samples) == 2
    assert set(samples.values()) == {(0, -1, False)}
    assert not {(7, 10), (4, 5)} & set(samples) and not sets.train.ambiguous.any()
    plain = load(folder, infer_group_pairs=False).train
    assert not plain.inferred.any()
    assert (1, 3) not in first_frame(plain)


def test_every_epoch_draws_afresh_and_every_draw_keeps_the_rules(folder):
    train = load(folder, max_negatives_per_frame=2).train
    epochs = [named_samples(train, epoch) for epoch in range(1, 31)]
    assert epochs[0] == named_samples(train, 1) != epochs[1]
    for drawn in epochs:
        frames = Counter(frame for (frame, *_), (label, *_) in drawn.items() if label == 0)
        assert set(frames.values()) == {2} and len(frames) == 6
        assert sum(label for label, *_ in drawn.values()) == 18
    seen = set().union(*epochs)
    every = named_samples(train.select(np.arange(len(train))))
    assert seen == set(every)  # no candidate is left out for ever
    fixed = load(folder, max_negatives_per_frame=2, resample=False).train
    assert named_samples(fixed, 1) == named_samples(fixed, 2)


def test_no_sequence_gives_more_pairs_than_asked_for(folder):
    sets = load(folder, pairs_per_sequence=10, max_negatives_per_frame=1)
    draws = [sets.train.draw(epoch) for epoch in range(1, 41)]
    assert {len(drawn) for drawn in draws} == {10}
    share = np.mean([sets.train.labels[drawn].mean() for drawn in draws])
    whole = load(folder, max_negatives_per_frame=1).train
    assert abs(share - whole.labels[whole.draw()].mean()) < 0.08  # positives and negatives alike
    assert len(sets.val) == len(load(folder).val)  # never of what is judged


def test_references_weigh_a_pair_by_how_often_it_is_drawn(folder):
    sets = load(folder, max_negatives_per_frame=2)
    geometry, labels = sets.reference_pairs()
    weights = sets.references()["train_weights"]
    assert len(geometry) == len(labels) == len(weights)
    assert (weights[labels == 1] == 1).all()  # the quota holds all of them
    assert weights[labels == 0].sum() == pytest.approx(6 * 2)
    fixed = load(folder, max_negatives_per_frame=2, resample=False).references()
    assert np.array_equal(fixed["train_weights"], weights)


def test_the_balance_of_an_epoch_is_told_beside_the_natural_one(folder, caplog):
    caplog.set_level("INFO", "run")
    load(folder, max_negatives_per_frame=2)
    assert "60.0% of an epoch's train pairs interact, 25.0% of all" in caplog.text
    assert "reverses the class balance" in caplog.text
    caplog.clear()
    load(folder, max_negatives_per_frame=99, stage1_balance_ratio=99, infer_group_pairs=False)
    assert "25.0% of an epoch's train pairs interact, 25.0% of all" in caplog.text
    assert "reverses the class balance" not in caplog.text


def test_group_quota_prefers_annotated_pairs_and_can_be_switched_off(folder):
    (folder / "split.json").write_text(json.dumps({"train": ["a", "c"], "val": ["b"]}))
    for ratio in (0.34, 0.1):  # never none
        small = load(folder, max_group_samples_ratio=ratio).train
        small = small.select(small.draw())
        assert small.labels.sum() == 12  # one per frame and sequence
        assert not small.inferred.any()
    types = load(folder, task="type", max_group_samples_ratio=0.34).train
    assert sum(types.class_counts().values()) == 12  # walking together, class 0, is no negative
    every = load(folder, max_group_samples_ratio=0.34, use_group_sampling=False)
    assert every.train.labels[every.train.draw()].sum() == 36


def test_a_frame_without_positives_gives_one_negative(tmp_path):
    labels = crowd(2)
    labels["000045.jpg"] = [person(i, [60 * i, 200, 60, 150], i) for i in range(5)]
    for down, name in enumerate(("a", "b")):
        write_labels(tmp_path, name, labels, down)
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a"], "val": ["b"]}))
    train = load(tmp_path).train
    train = train.select(train.draw())
    assert (train.frame_keys[train.frames] == "000045.jpg").sum() == 1


@pytest.mark.parametrize(("frames", "name"), [(6, "b in val"), (2, "b in val"), (2, "c in test")])
def test_a_copy_of_a_train_sequence_or_of_a_part_is_refused_whatever_it_is_called(folder, frames, name):
    write_labels(folder, name[0], crowd(frames, start=300))
    with pytest.raises(DataError, match=f"Leakage: {name} and a in train hold the same"):
        load(folder)


def test_samples_do_not_depend_on_the_order_of_the_files(folder, tmp_path):
    other = tmp_path / "shuffled"
    for path in sorted((folder / LABEL_FOLDER).iterdir(), reverse=True):
        labels = json.loads(path.read_text())["labels"]
        write_labels(other, path.stem, {key: records[::-1] for key, records in reversed(labels.items())})
    (other / "split.json").write_bytes((folder / "split.json").read_bytes())
    one, two = load(folder, max_negatives_per_frame=2), load(other, max_negatives_per_frame=2)
    assert named_samples(one.train) == named_samples(two.train)
    assert np.array_equal(one.train.geometry, two.train.geometry, equal_nan=True)
    assert one.describe()["fingerprint"] == two.describe()["fingerprint"]
    third = load(folder, max_negatives_per_frame=2, seed=7)
    assert named_samples(one.train) != named_samples(third.train)
    assert named_samples(one.val) == named_samples(third.val)


def test_types_are_annotated_positives_only(folder, caplog):
    sets = load(folder, task="type", rescore=True)
    assert (
        "train: no pair of type standing together, sitting together, others: what train lacks" in caplog.text
    )
    for dataset in sets.parts.values():
        assert dataset.near is None  # types are not corrected by the other pairs
        assert dataset.class_counts() == dict(zip(dataset.class_names, (6, 0, 6, 0, 0), strict=True))
        assert np.array_equal(dataset.labels, dataset.types)
        assert not dataset.inferred.any()


def test_what_is_too_difficult_or_contradicts_itself_is_neither_inferred_nor_a_type(folder):
    labels = crowd(6)
    for people in labels.values():  # 1-3 is too difficult, not merely unnamed; 2-3 has two classes
        people[0] |= person(1, people[0]["box"], 1, pedestrian_2="walking together", pedestrian_3="hugging")
        people[0]["H-interaction"][1]["inter_labels"]["hugging"] = 3
        people[2] |= person(3, people[2]["box"], 1, pedestrian_2="hugging")
    write_labels(folder, "a", labels)
    assert (1, 3) in first_frame(load(folder).train)
    assert (1, 3) not in first_frame(load(folder, max_difficulty=2).train)
    types = load(folder, task="type", multi_label="drop", max_difficulty=2).train
    assert types.class_counts() == dict(zip(types.class_names, (6, 0, 0, 0, 0), strict=True))


def test_a_pair_that_is_too_difficult_links_nobody(folder):
    labels = crowd(6)
    for people in labels.values():  # 1-2 is ignored, so that nothing says that 1 and 3 interact
        for record, partner in zip(people[:2], ("pedestrian:2", "pedestrian:1"), strict=True):
            (entry,) = (entry for entry in record["H-interaction"] if entry["pair"] == partner)
            entry["inter_labels"] = dict.fromkeys(entry["inter_labels"], 3)
    write_labels(folder, "a", labels)
    samples = first_frame(load(folder, max_difficulty=2).train)
    assert (2, 3) in samples and not {(1, 2), (1, 3)} & set(samples)


def test_judged_train_has_annotated_labels_only(folder):
    run = load(folder).train
    assert run.inferred.any()

    def choose(hashes):
        return {"train": list(run.sequences)}

    choose.dataset = {}
    judged = load(folder, choose=choose).parts["train"]
    assert not judged.inferred.any()
    assert np.array_equal(judged.labels, (judged.types >= 0).astype(int))


def test_frame_stride_thins_samples_but_not_history(folder):
    full, thin = (load(folder).val, load(folder, frame_stride=3).val)
    assert thin.frame_keys.tolist() == ["000015.jpg", "000060.jpg"]
    half = load(folder, frame_stride=2).val
    assert half.frame_keys.tolist() == full.frame_keys.tolist()[::2]
    every, kept = named_samples(full), named_samples(thin)
    rows = {key: i for i, key in enumerate(every)}
    for part in (half, thin):
        assert set(named_samples(part)) == {key for key in every if key[0] in part.frame_keys}
    for i, key in enumerate(kept):
        assert np.array_equal(thin.geometry[i], full.geometry[rows[key]], equal_nan=True)
    seen = thin.geometry[thin.frames == 1, thin.feature_names.index("seen_share")]
    assert np.allclose(seen, 3 / 5)


def test_a_batch_holds_each_person_once(folder):
    val = load(folder).val
    indices = [5, 0, 1, 17]
    batch = val.__getitems__(indices)
    persons = batch["persons"].numpy()
    assert len(np.unique(persons)) == len(persons) < 2 * len(indices)
    assert np.array_equal(persons[batch["left"]], val.left[indices])
    assert np.array_equal(persons[batch["right"]], val.right[indices])
    assert np.array_equal(batch["geometry"].numpy(), val.geometry[indices], equal_nan=True)
    assert batch["labels"].tolist() == val.labels[indices].tolist()
    assert batch["frames"].tolist() == val.frames[indices].tolist()
    assert "crops" not in batch


def test_with_rescoring_a_batch_goes_on_with_the_other_pairs_in_range_of_its_frames(folder):
    part = load(folder, rescore=True).train.select(np.array([20, 3, 21]))  # of three of six frames
    batch, every = part.__getitems__([2, 0]), load(folder).all_in_range("train")
    persons = batch["persons"].numpy()
    found = list(zip(persons[batch["left"]].tolist(), persons[batch["right"]].tolist(), strict=True))
    assert found[:2] == list(zip(part.left[[2, 0]].tolist(), part.right[[2, 0]].tolist(), strict=True))
    there = np.isin(every.frames, part.frames[[2, 0]])
    assert sorted(found) == sorted(zip(every.left[there].tolist(), every.right[there].tolist(), strict=True))
    assert {part.feature_names[k][-2:] for k in part.past_columns[:5]} == {"1s"}


def test_missing_images_are_named_when_pixels_are_asked_for(folder):
    with pytest.raises(
        DataError, match=r"images of the train split, which needs 6 \(6 times\)\n.*a/000015.jpg"
    ):
        load(folder, features="crops")


def test_checking_the_data_names_every_damaged_image_and_wrong_size(folder):
    for name in "abc":
        for key in crowd(6):
            path = folder / IMAGE_FOLDER / name / key
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (3760, 480) if (name, key) != ("b", "000045.jpg") else (1880, 240)).save(path)
    damaged = [folder / IMAGE_FOLDER / name / "000030.jpg" for name in "ac"]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError) as error:
        load(folder, features="crops", check_data=True)
    for line in ("cannot be used (2 times)", *map(str, damaged), "b/000045.jpg: the panorama is 1880x240"):
        assert line in str(error.value)


def test_people_inside_their_own_panorama_are_kept_whatever_the_size_of_the_first(folder):
    write_labels(folder, "d", {"000015.jpg": [person(k, [6000 + 90 * k, 500, 60, 150], k) for k in (1, 2)]})
    for name, size in (("b", (3760, 480)), ("d", (7520, 960))):
        (folder / IMAGE_FOLDER / name).mkdir(parents=True)
        Image.new("RGB", size).save(folder / IMAGE_FOLDER / name / "000015.jpg")
    (folder / "split.json").write_text(json.dumps({"train": ["a"], "val": ["b", "d"]}))
    val = load(folder).val
    of_d = np.flatnonzero(val.sample_sequences == 1)
    kept = keyframe_rows(val, val.social_groups, np.arange(len(val.boxes)), val.sequences)
    assert kept.x1[kept.sequence == 1].tolist() == [6090, 6180]
    (picture,) = look_at_pair(val, of_d[0])
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 3, "ground, left and right person"


def write_images(folder):
    """Stripes of random colours for every frame of the crowd scenes."""
    rng = np.random.default_rng(0)
    for path in (folder / LABEL_FOLDER).iterdir():
        images = folder / IMAGE_FOLDER / path.stem
        images.mkdir(parents=True)
        for key in crowd(6):
            colours = rng.integers(0, 255, (1, 94, 3), dtype=np.uint8).repeat(40, 1).repeat(480, 0)
            Image.fromarray(colours).save(images / key)


def test_the_people_that_stage_2_is_judged_on_are_cut_once(folder, tmp_path):
    """Whether its pairs with a type are looked at or, in the same part, all pairs in range are scored."""
    write_images(folder)
    flags = {"features": "crops", "image_size": (16, 8), "cache_dir": tmp_path / "cache"}
    sets = load(folder, task="type", **flags)
    for name in ("val", "test"):
        part, every = sets.parts[name], sets.all_in_range(name)
        assert len(part) < len(every) and part.crops is every.crops
        row = every.crop_rows[part.left[0]]
        assert row >= 0 and np.array_equal(part.__getitems__([0])["crops"][0], every.crops[row])
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 3  # train, val and test


def test_crops_of_sequences_with_panoramas_of_different_sizes(folder, tmp_path):
    for name, size in {"a": (3760, 480), "b": (4000, 500), "c": (3760, 480)}.items():
        for key in crowd(6):
            path = folder / IMAGE_FOLDER / name / key
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", size).save(path)
    (tmp_path / "both.json").write_text('{"train": ["a", "b"], "val": ["c"]}')
    flags = {"split_method": str(tmp_path / "both.json"), "image_size": (8, 4), "cache_dir": tmp_path}
    data = load(folder, features="crops", check_data=True, **flags)
    assert len(data.train.crops) == 6 * (8 + 7)  # in b, 10 stands far from 7


def test_crops_are_those_of_the_people(folder, tmp_path):
    write_images(folder)
    sets = load(folder, features="crops+geometry", image_size=(16, 8), cache_dir=tmp_path / "cache")
    assert sets.val.image_found.all()
    assert "b/" in sets.val.sequences[0] + "/"
    batch = sets.val.__getitems__([0, 7, 9])
    assert batch["crops"].shape == (len(batch["persons"]), 3, 16, 8)
    assert batch["crops"].numpy().dtype == np.uint8
    again = sets.val.__getitems__([9])
    place = int(np.flatnonzero(batch["persons"].numpy() == again["persons"].numpy()[0])[0])
    assert np.array_equal(batch["crops"][place], again["crops"][0])


def test_a_mirrored_frame_is_mirrored_as_a_whole(folder, tmp_path, monkeypatch):
    """Crops, sides and geometry; of two people one above the other nobody becomes the other's right."""
    labels = crowd(6)
    for people in labels.values():  # 6 and 8 one above the other; 10 and 12 only score others
        people += [
            person(8, [1400, 80, 50, 110]),
            person(11, [2500, 200, 60, 150], 9),
            person(12, [2560, 200, 60, 150], 9),
        ]
    write_labels(folder, "b", labels, 1)
    write_images(folder)
    part = load(folder, features="crops+geometry", rescore=True, image_size=(16, 8), cache_dir=tmp_path).val
    assert set(part.crop_rows[part.__getitems__(range(len(part)))["persons"]] >= 0) == {True}
    monkeypatch.setattr(augmentation, "COLOR_JITTER", 0)
    batch = part.__getitems__(range(len(part)))
    found = augmentation.augment_pairs(batch, part.feature_names, 0, 1)
    mirrored = uniform(0, 1, np.arange(6), 1)[:, 0] < 0.5
    assert 0 < mirrored.sum() < 6
    persons, geometry = batch["persons"].numpy(), batch["geometry"].numpy()
    turned = torch.from_numpy(mirrored[part.people_frames[persons]])
    plain = batch["crops"].float() / 255
    assert torch.allclose(
        found["crops"], torch.where(turned[:, None, None, None], plain.flip(-1), plain), atol=1e-6
    )
    frames = mirrored[batch["frames"].numpy()]
    expected = np.where(frames[:, None], mirror_features(geometry, part.feature_names), geometry)
    assert np.array_equal(found["geometry"], expected, equal_nan=True)
    stacked = geometry[:, part.feature_names.index("half_turn")] == 0
    assert stacked.sum() == 6
    swapped = torch.from_numpy(frames & ~stacked)
    assert torch.equal(found["left"], torch.where(swapped, batch["right"], batch["left"]))
    assert torch.equal(found["right"], torch.where(swapped, batch["left"], batch["right"]))


@pytest.mark.parametrize("source", ["interaction", "social_group"])
@pytest.mark.parametrize("nobody", [-1, 0])
def test_a_group_of_those_who_are_in_none_is_suspected(tmp_path, caplog, source, nobody):
    for name, down in (("a", 0), ("b", 1)):
        labels = crowd()
        for records in labels.values():
            alone = records[5:] + [person(20 + k, [1700 + 150 * k, 200, 60, 150]) for k in range(9)]
            records[5:] = [record | {"social_group": {"cluster_ID": nobody}} for record in alone]
        write_labels(tmp_path, name, labels, down)
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a"], "val": ["b"]}))
    load(tmp_path, pairs_from=source)
    assert ("does a cluster_ID mean no group" in caplog.text) == (nobody == 0)


@pytest.mark.parametrize(("shuffled", "rate"), [(False, 15), (False, 225), (True, 15)])
def test_people_who_move_too_fast_are_told(tmp_path, caplog, shuffled, rate):
    """Frames counted at another rate, or ids that are not of tracks. Two rows of people pass each other at
    half a height per second."""
    rng = np.random.default_rng(0)
    for name, down in (("a", 0), ("b", 1)):
        labels = {}
        for second in range(20):
            ids = rng.permutation(8).tolist() if shuffled else list(range(8))
            places = [900 + 80 * (k // 2) + 15 * (second - 17) * (-1) ** k for k in range(8)]
            people = [person(n, [x, 200, 60, 60]) for n, x in zip(ids, places, strict=True)]
            people[0] = person(ids[0], [places[0], 200, 60, 60], **{f"pedestrian_{ids[2]}": "conversation"})
            labels[f"{15 * second:06d}.jpg"] = people
        write_labels(tmp_path, name, labels, down)
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a"], "val": ["b"]}))
    load(tmp_path, frame_rate=rate)
    told = "of pairs move too fast for people: check --frame_rate" in caplog.text
    assert told == (shuffled or rate == 225)


def test_one_person_in_the_same_place_is_no_copy(folder):
    """A frame with one box is the same in many recordings."""
    alone = {"000990.jpg": [person(9, [700, 200, 60, 150])]}
    write_labels(folder, "a", crowd(6) | alone)
    write_labels(folder, "b", {key: people[:7] for key, people in crowd(6).items()} | alone)
    load(folder)


def test_a_sequence_that_stands_twice_in_a_part_is_refused(folder):
    """Downloaded again: more groups than there are would make the interval of the verdict narrow."""
    (folder / LABEL_FOLDER / "c (1).json").write_bytes((folder / LABEL_FOLDER / "c.json").read_bytes())
    (folder / "split.json").write_text(json.dumps({"train": ["a"], "val": ["b"], "test": ["c", "c (1)"]}))
    with pytest.raises(DataError, match=r"c \(1\) and c hold the same data\n  remove one"):
        load(folder)


def test_one_class_and_empty_splits_are_refused(tmp_path):
    labels = crowd(1)
    write_labels(tmp_path, "a", labels)
    write_labels(tmp_path, "b", {key: [r | {"H-interaction": []} for r in rs] for key, rs in labels.items()})
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a"], "val": ["b"]}))
    with pytest.raises(DataError, match=r"(?s)the val split.*'interaction': 0}.*max_negatives_per_frame or"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"(?s)the val split.*--max_difficulty or"):  # stage 2 lacks the flag
        load(tmp_path, task="type")


def test_report_of_the_crowd(folder):
    data = load(folder)
    report = data.sampling_report()["splits"]["val"]
    assert data.log_lines()[1].endswith(", 12 ambiguous")
    assert json.loads(json.dumps(report)) == report
    assert report["frames"] == 6
    assert report["boxes"] == 48
    assert report["seam_boxes"] == 6
    assert report["pairs_total"] == 6 * 28
    assert report["positives_total"] == 18
    assert report["positives_lost_to_distance"] == 6
    assert report["ambiguous_pairs"] == 12
    assert report["pairs_in_range"] == report["sampled_positives"] + report["sampled_negatives"] + 12
    assert report["negatives_that_are_positives"] == report["order_dependent_decisions"] == 0
    assert report["negatives_per_positive_in_range"] == (report["pairs_in_range"] - 12) / 12
    assert report["negatives_per_positive_natural"] == (6 * 28 - 18) / 18
    assert report["missing_images"] == 6


def wrong_negatives(sets, part: str) -> int:
    """Recounted from the raw files, in both directions: drawn negatives that are named as interacting."""
    raw = set()
    for name in sets.split[part]:
        labels = json.loads((sets.data_path / LABEL_FOLDER / f"{name}.json").read_bytes())["labels"]
        raw |= {
            (key, record["label_id"], entry["pair"])
            for key, records in labels.items()
            for record in records
            for entry in record["H-interaction"]
        }
    negatives = [pair for pair, (label, *_) in named_samples(sets.parts[part]).items() if label == 0]
    assert negatives
    return sum((key, a, b) in raw or (key, b, a) in raw for key, a, b in negatives)


@pytest.mark.parametrize("infer", [True, False])
def test_no_negative_is_a_positive_also_by_the_raw_files(folder, infer):
    sets = load(folder, infer_group_pairs=infer)
    report = sets.sampling_report()["splits"]
    for part in sets.parts:
        assert report[part]["negatives_that_are_positives"] == wrong_negatives(sets, part) == 0
    sets.val.labels[0] = 0  # a positive sold as a negative
    assert sets.sampling_report()["splits"]["val"]["negatives_that_are_positives"] == 1
    assert wrong_negatives(sets, "val") == 1


def test_figures_of_the_real_sequences(real):
    sets = load(real / "jrdb")
    report = sets.sampling_report()["splits"]
    total = {k: report["train"][k] + v for k, v in report["val"].items() if type(v) is int}
    expected = {
        "pairs_total": 213397,
        "pairs_in_range": 50464,
        "positives_total": 5682,
        "positives_lost_to_distance": 378,
        "seam_boxes": 95,
        "negatives_that_are_positives": 0,
        "order_dependent_decisions": 0,
        "ambiguous_pairs": 0,
        "inferred_positives": 0,
        "conflicting_pairs": 0,
        "missing_partners": 0,
    }
    assert {key: total[key] for key in expected} == expected
    assert "test" not in sets.parts
    labels = sets.reference_pairs()[1]
    assert len(labels) + len(sets.val) == 50464
    assert labels.sum() + sets.val.labels.sum() == 5682 - 378
    first = load(real / "jrdb", distance_norm="first")
    decisions = first.sampling_report()["splits"]
    assert (
        decisions["train"]["order_dependent_decisions"] + decisions["val"]["order_dependent_decisions"]
        == 24025
    )


def test_images_of_another_size_than_the_boxes_are_noticed(tmp_path, caplog):
    for down, name in enumerate(("a", "b", "c")):
        write_labels(tmp_path, name, {key: people[:6] for key, people in crowd().items()}, down)
        (tmp_path / IMAGE_FOLDER / name).mkdir(parents=True)
        Image.new("RGB", (1880, 240)).save(tmp_path / IMAGE_FOLDER / name / "000015.jpg")
    (tmp_path / "split.json").write_text('{"train": ["a"], "val": ["b"], "test": ["c"]}')
    load(tmp_path)
    leave = "a, b, c: 72 of 72 boxes leave the 1880x240 panorama (size from a/000015.jpg): do the images have"
    assert leave in caplog.text
    write_labels(tmp_path, "c", crowd(), 2)
    with pytest.raises(
        DataError, match="(?s)outside the 1880x240 panorama.*use images of the annotated size"
    ):
        load(tmp_path)
