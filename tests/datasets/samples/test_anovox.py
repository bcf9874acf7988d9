"""The built-in AnoVox sample: one world for both sensors, the true layout, and no short cut to its labels."""

import colorsys
import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datasets.anovox.load import places_of, trivial_features
from datasets.anovox.raycast import Solid, intersect
from datasets.samples import anovox
from datasets.samples.anovox import generate, voxelize
from datasets.samples.anovox import scenario as plans
from datasets.samples.anovox.rays import camera_rays, cast, lidar_rays, windows
from datasets.samples.anovox.scenario import AGENT_CAR, CAR, KINDS, OTHER, SHARES, Town, paint
from tests.anovox_world import frame_files, load, scenario_folders, tiny_sample

EYE = np.array([0.0, 0.0, 1.8])


def digest(root) -> str:
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            total.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return total.hexdigest()


def test_same_seed_same_bytes_from_any_number_of_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(anovox, "count_processes", lambda jobs, few: 2)
    generate(tmp_path / "again", "tiny", 0)
    assert digest(tmp_path / "again") == digest(tiny_sample())


def test_every_frame_has_all_files_and_numbers_pass_999():
    root = tiny_sample()
    crossing = 0
    for scenario in scenario_folders(root):
        anomalous = (scenario / "ANOMALY").exists()
        frames = [
            {int(p.stem.rsplit("_", 1)[1]) for p in folder.iterdir()}
            for folder in scenario.iterdir()
            if folder.is_dir()
        ]
        assert len(frames) == 5 + anomalous and all(numbers == frames[0] for numbers in frames)
        crossing += min(frames[0]) < 1000 <= max(frames[0])
    assert crossing > 0
    assert json.loads((root / "SYNTHETIC.json").read_text())["synthetic"] is True


def test_file_types_are_those_of_anovox():
    scenario = scenario_folders(tiny_sample())[0]
    assert Image.open(frame_files(scenario, "SEMANTIC-CAM")[0]).mode == "L"
    points, semantic = (np.load(frame_files(scenario, sensor)[0]) for sensor in ("LIDAR", "SEMANTIC-LIDAR"))
    assert points.dtype == np.float32 and semantic.dtype == np.float64 and points.shape == semantic.shape
    voxels = np.load(frame_files(scenario, "VOXEL_GRID")[0])
    assert voxels.dtype == np.uint16 and np.array_equal(voxels, voxelize(semantic))
    assert np.allclose(points[:, 3], np.exp(-0.004 * np.linalg.norm(semantic[:, :3], axis=1)), atol=1e-5)
    assert (
        np.diff(np.arctan2(semantic[:, 2], np.hypot(*semantic[:, :2].T))) < 1e-9
    ).all()  # the top ring first


def test_camera_and_lidar_agree_about_class():
    agree = []
    for scenario in scenario_folders(tiny_sample())[:4]:
        files = (frame_files(scenario, sensor) for sensor in ("SEMANTIC-CAM", "SEMANTIC-LIDAR"))
        for semantic_file, scan_file in zip(*files, strict=True):
            classes, scan = np.asarray(Image.open(semantic_file)), np.load(scan_file)
            height, width = classes.shape
            scan = scan[scan[:, 0] > 0.5]
            u = (width / 2 - width / 2 * scan[:, 1] / scan[:, 0]).astype(int)
            v = (height / 2 - width / 2 * scan[:, 2] / scan[:, 0]).astype(int)
            inside = (u > 0) & (u < width - 1) & (v > 0) & (v < height - 1)
            u, v, scan = u[inside], v[inside], scan[inside]
            around = np.stack([classes[v + dv, u + du] for dv in (-1, 0, 1) for du in (-1, 0, 1)])
            flat = (around == around[0]).all(axis=0)  # away from edges
            agree.append(classes[v, u][flat] == scan[flat, 3])
    assert np.concatenate(agree).mean() >= 0.97


@pytest.mark.parametrize("kind", ["box", "cylinder", "ellipsoid"])
def test_ray_casting_against_marching(kind):
    solid = Solid(
        kind, (6.0, 1.0, 0.8), (2.0, 1.2, 1.6), (1, 1, 1), 20, yaw=0.0 if kind == "cylinder" else 0.6
    )
    rays = lidar_rays(24, 180)
    found = intersect(solid, rays, EYE)
    window = windows([solid], EYE, rays)[0]
    outside = found.copy()
    outside[window] = np.inf
    assert np.isinf(outside).all() and np.isfinite(found).sum() > 20  # culling loses no hit
    steps = np.arange(2, 12, 0.01)
    along = EYE + steps[:, None, None] * rays[np.isfinite(found)][None]
    local = along - solid.centre
    turn = np.array([[np.cos(solid.yaw), -np.sin(solid.yaw)], [np.sin(solid.yaw), np.cos(solid.yaw)]])
    x, y = np.moveaxis(local[..., :2] @ turn, -1, 0) / (np.array(solid.size[:2]) / 2)[:, None, None]
    z = local[..., 2] / (solid.size[2] / 2)
    inside = {
        "box": np.maximum(np.maximum(abs(x), abs(y)), abs(z)),
        "cylinder": np.maximum(np.hypot(x, y), abs(z)),
        "ellipsoid": np.sqrt(x * x + y * y + z * z),
    }[kind] <= 1
    first = np.where(inside.any(0), steps[inside.argmax(0)], np.nan)
    error = np.abs(found[np.isfinite(found)] - first)
    assert np.nanmax(error) < 0.03 and np.isnan(error).mean() < 0.1  # grazing rays slip through the steps


def test_camera_window_loses_no_pixel():
    solid = Solid("box", (5.0, -2.0, 1.0), (1.5, 1.0, 2.0), (1, 1, 1), 20, yaw=0.4)
    rays = camera_rays(48, 72)
    ground = np.where(rays[..., 2] < 0, EYE[2] / np.abs(rays[..., 2]), np.inf)
    shown = intersect(solid, rays, EYE) < ground
    assert np.array_equal(cast(rays, [solid], EYE)[1] == 0, shown) and shown.any()


def test_test_towns_and_shapes_are_held_out():
    root = tiny_sample()
    split = json.loads((root / "split.json").read_text())
    towns, shapes = {}, {part: set() for part in split}
    for path in root.glob("*/Scenario_Configuration_Files/*.json"):
        content = json.loads(path.read_text())["scenario_definition"]
        towns |= {f"Scenario_{entry['id']}": content["map"] for entry in content["scenarios"]}
    for part, names in split.items():
        for scenario in scenario_folders(root):
            if scenario.name in names and (scenario / "ANOMALY").exists():
                for file in frame_files(scenario, "ANOMALY"):
                    line = next(x for x in file.read_text().splitlines() if x.startswith("anomaly_type_id"))
                    shapes[part].add(line.split("_")[-2])
    assert not {towns[name] for name in split["test"]} & {
        towns[name] for name in split["train"] + split["val"]
    }
    assert not (shapes["test"] & (shapes["train"] | shapes["val"])) - {"phantom", "hump"}


@pytest.mark.long
def test_trivial_features_do_not_tell_the_label(tmp_path, monkeypatch):
    """Colours, counts, file sizes, frame numbers, weather and town, on coarse sensors; folds of whole
    scenarios."""
    from datasets.samples import anovox

    monkeypatch.setitem(anovox.SIZES, "small", ((27, 6, 12), 8, (32, 48), (12, 90)))
    generate(tmp_path / "sample", "small", 0)
    quiet = {"cache_dir": tmp_path / "cache"}
    data = load(tmp_path / "sample", image_size=(32, 48), max_points=16, **quiet)
    parts = list(data.parts.values())
    words = np.unique(places_of(data.train))
    features = np.concatenate([trivial_features(part, words) for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    scenarios = np.concatenate([part.scenario for part in parts])
    groups = {"colours": slice(0, 24), "points": slice(24, 25), "file size": slice(25, 26),
              "frame": slice(26, 27), "weather and town": slice(27, None), "all": slice(0, None)}  # fmt: skip
    for name, columns in groups.items():
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        folds = {"groups": scenarios, "cv": GroupKFold(5), "method": "decision_function"}
        scores = cross_val_predict(model, features[:, columns], labels, **folds)
        auroc = roc_auc_score(labels, scores)
        assert auroc < 0.60, f"{name}: {auroc:.3f}"


@pytest.mark.long
def test_no_pixel_and_no_patch_tells_the_label(tmp_path, monkeypatch):
    """A classifier of single colours and one of 16 x 16 patches, trained with the truth of every pixel."""
    from datasets.samples import anovox

    monkeypatch.setitem(anovox.SIZES, "small", ((36, 4, 24), 8, (128, 192), (10, 60)))
    generate(tmp_path / "sample", "small", 0)
    quiet = {"cache_dir": tmp_path / "cache"}
    data = load(tmp_path / "sample", max_points=16, **quiet)
    rng = np.random.default_rng(0)

    def cut(part, side):
        """Squares of the images (F, squares, side * side * 3), and which show an anomaly."""
        images, truth = np.array(part.images), np.stack([part.true_pixels(i) == 1 for i in range(len(part))])
        blocks = (len(images), 128 // side, side, 192 // side, side)
        squares = images.reshape(*blocks, 3).transpose(0, 1, 3, 2, 4, 5).reshape(len(images), -1, side**2 * 3)
        shown = truth.reshape(blocks).transpose(0, 1, 3, 2, 4).reshape(*squares.shape[:2], -1).sum(axis=2)
        return squares / 255, shown >= min(10, side**2)

    for side in (1, 16):
        squares, shown = (values.reshape(-1, *values.shape[2:]) for values in cut(data.train, side))
        chosen = [np.flatnonzero(shown), np.flatnonzero(~shown)]
        rows = np.concatenate([rng.permutation(part)[:8000] for part in chosen])
        reduce = PCA(min(48, squares.shape[1]), svd_solver="randomized", random_state=0).fit(squares[rows])
        models = {"trees": HistGradientBoostingClassifier(class_weight="balanced", random_state=0)}
        if side > 1:
            models["network"] = MLPClassifier((128, 64), early_stopping=True, random_state=0)
        seen = reduce.transform(squares[rows])
        squares, _ = cut(data.parts["test"], side)
        unseen = reduce.transform(squares.reshape(-1, squares.shape[2]))
        for name, model in models.items():
            scores = (
                model.fit(seen, shown[rows]).predict_proba(unseen)[:, 1].reshape(len(data.parts["test"]), -1)
            )
            ordered = np.sort(scores, axis=1)
            found = {"largest": np.percentile(scores, 99.9, axis=1), "mean": scores.mean(axis=1)}
            found["mean of the three largest"] = ordered[:, -3:].mean(axis=1)
            figures = {how: roc_auc_score(data.parts["test"].labels, score) for how, score in found.items()}
            print(f"{side} x {side}, {name}:", ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
            assert max(figures.values()) < 0.60, f"{side} x {side}, {name}: {figures}"


def test_places_in_drives_and_lists_do_not_tell_the_label():
    """Of a frame in its drive, and of a scenario in split.json, in configurations and by file times."""
    from datasets.samples import anovox

    places, ranks = [], []
    for seed in range(20):
        listed = [plan["anomalous"] for plan in anovox._draw_plans((60, 1, 1), 8, seed)[:60]]
        places.append(roc_auc_score(listed, range(60)))
        _, frames = plans.plan_scenario(Town(plans.TRAIN_TOWNS[0]), True, ["both"] * 8, [7, seed])
        ranks.append([frame.anomalous for frame in frames])
    assert abs(np.mean(places) - 0.5) < 0.05
    ends = np.array([1, 0.5, 0, 0, 0, 0, 0.5, 1])
    assert abs(roc_auc_score(np.ravel(ranks), np.tile(ends, 20)) - 0.5) < 0.1
    assert 0.4 < np.mean(ranks) < 0.6 and np.any(ranks, axis=1).all()


def test_test_hues_are_held_out():
    hues = {}
    for held_out in (False, True):
        rng = np.random.default_rng(0)
        colours = [paint(rng, held_out) for _ in range(300)]
        hues[held_out] = {int(colorsys.rgb_to_hsv(*colour)[0] * 6) for colour in colours}
    assert hues == {False: {0, 2, 4}, True: {1, 3, 5}}


def test_what_is_there_beside_the_anomaly_does_not_tell_the_label():
    """Counterparts and cars, counted where the sensors look: an ideal sensor that misses the anomaly itself
    must be left with nothing, or the ceilings of the single sensors are not what they claim."""
    rng = np.random.default_rng(7)
    counts, labels = [], []
    for number in range(120):
        kinds = [str(kind) for kind in rng.choice(KINDS, 8, p=SHARES)]
        for frame in plans.plan_scenario(Town(plans.TRAIN_TOWNS[number % 6]), True, kinds, [7, number])[1]:
            things = [*frame.solids, *frame.decals]
            seen = [thing for thing in things if 4 < thing.centre[0] - frame.eye[0] < 20]
            classes = [thing.class_id for thing in seen]
            counts.append([classes.count(OTHER), classes.count(CAR) + classes.count(AGENT_CAR)])
            labels.append(frame.anomalous)
            assert any(28 < number < 35 for number in classes) == frame.anomalous
    for column in np.array(counts).T:
        assert len(set(column)) > 1 and abs(roc_auc_score(labels, column) - 0.5) < 0.06
