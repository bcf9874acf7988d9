"""The benchmarks' arithmetic, and that every naive reference computes what it is compared with."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks import __main__ as everything
from benchmarks import (
    anomaly_step,
    crops_per_pair,
    jrdb_index,
    pair_loader,
    report,
    scale,
    stage1_epoch,
    timing,
    worker,
)
from benchmarks.jrdb_world import PEOPLE, write_world
from datasets.jrdb.dataset import load_pair_datasets
from datasets.jrdb.labels import IMAGE_FOLDER, LABEL_FOLDER, read_sequence
from models.encoders import build_encoder
from models.pairs import TwoStageInteractionClassifier
from tests.jrdb_world import write_world as write_pairs
from utils.training.distributed import Processes, make_loader


def test_a_ratio_is_taken_round_by_round_and_judged_by_its_worse_quartile():
    slow = timing.Timing([4, 6, 10, 8], [4] * 4, [0.0] * 4)
    fast = timing.Timing([2, 2, 2, 2], [2] * 4, [0.0] * 4)
    ratio = timing.times_faster(slow, fast)
    assert (ratio.median, ratio.low, ratio.high, ratio.n) == (3.5, 2.75, 4.25, 4)
    assert timing.verdict(ratio, at_least=2.7) == "met"
    assert timing.verdict(ratio, at_least=3) == "not met"  # although the median is above 3
    assert timing.verdict(ratio, at_most=4) == "not met"
    assert timing.verdict(ratio, at_most=4.3) == "met"


def test_a_busy_machine_gives_no_verdict_it_could_have_decided():
    slow = timing.Timing([4, 6, 10, 8], [4] * 4, [1.5] * 4)
    fast = timing.Timing([2, 2, 2, 2], [2] * 4, [0.0] * 4)
    ratio = timing.times_faster(slow, fast)
    assert timing.verdict(ratio, at_least=3) == "inconclusive"
    assert timing.verdict(ratio, at_least=5) == "not met"
    assert timing.verdict(ratio, at_least=2) == "met"


def test_rounds_are_interleaved_and_start_with_another_variant_each():
    calls = []
    variants = {name: lambda name=name: calls.append(name) or 2.0 for name in "abc"}
    timings = timing.measure(variants, rounds=3, least=0)
    assert "".join(calls) == "abcbcacab"
    assert timings["b"].wall == [2.0] * 3  # a variant that returns seconds is believed


WAITING = """
import sys, time
from benchmarks.worker import serve

def burn():
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    return {"cpu": time.process_time()}

serve(burn if sys.argv[1] == "well" else lambda: 1 / 0)
"""


def test_a_worker_runs_once_per_call_and_its_cpu_time_is_ours():
    with worker.Worker([sys.executable, "-c", WAITING, "well"]) as waiting:
        waiting()
        before = timing.own_cpu_seconds()
        waiting()
        assert timing.own_cpu_seconds() - before > 0.15  # it is alive: not a neighbour's time
    first, second = (answer["cpu"] for answer in waiting.answers)
    assert second >= first + 0.2
    assert waiting.process.returncode == 0


def test_a_worker_that_fails_says_why():
    with (
        worker.Worker([sys.executable, "-c", WAITING, "badly"]) as waiting,
        pytest.raises(RuntimeError, match="ZeroDivisionError"),
    ):
        waiting()


def test_growth_is_the_exponent():
    sizes = [10, 100, 1000]
    assert timing.growth(sizes, [3 * n for n in sizes]) == pytest.approx(1)
    assert timing.growth(sizes, [n**2 for n in sizes]) == pytest.approx(2)


def test_what_stands_outside_the_markers_of_the_readme_stays():
    text = f"before\n{everything.BEGIN}\nold\n{everything.END}\nafter\n"
    new = everything.rewrite(text, "new")
    assert new.startswith("before\n") and new.endswith(f"{everything.END}\nafter\n")
    assert "new" in new and "old" not in new
    assert everything.rewrite(new, "new") == new
    with pytest.raises(ValueError, match="markers"):
        everything.rewrite("no markers", "new")
    everything.rewrite(everything.README.read_text(), "new")  # the real file has them


def test_report_writes_tables_raw_timings_and_judged_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    monkeypatch.setattr(report, "convolution_gflops", lambda: 100.0)
    one = report.Report("name", "Title")
    one.timings({"ours": timing.Timing([0.5, 0.25, 1.0], [0.5] * 3, [0.0] * 3)}, "ms")
    one.judge("faster", timing.Ratio(3, 2, 4, 5), at_least=2.5, aim=">= 4x")
    one.finish()
    content = json.loads((tmp_path / "name.json").read_text())
    assert content["raw"]["ours"]["wall"] == [0.5, 0.25, 1.0]
    assert content["judged"][0]["verdict"] == "not met" and content["judged"][0]["counts"] == 2
    assert "| ours | 500 | 250 .. 1e+03 | 3 | 500 | 0.00 |" in capsys.readouterr().out
    assert "| faster | 3x | 2x | 5 | >= 2.5x | >= 4x | not met |" in everything.tables({"name": content})


@pytest.fixture
def pairs(tmp_path):
    """A tiny JRDB folder with noisy panoramas, some people on the seam, crops cached."""
    folder = write_pairs(tmp_path / "jrdb", {"train": 2, "val": 1}, frames=2)
    rng = np.random.default_rng(0)
    for path in (folder / LABEL_FOLDER).glob("*.json"):
        place = folder / IMAGE_FOLDER / path.stem
        place.mkdir(parents=True)
        for key in json.loads(path.read_text())["labels"]:
            small = Image.fromarray(rng.integers(0, 256, (48, 376, 3), dtype=np.uint8))
            small.resize((3760, 480)).save(place / key)
    options = {"cache_dir": tmp_path / "cache", "workers": 1, "log": lambda text: None}
    return load_pair_datasets(folder, features="crops+geometry", image_size=(32, 16), **options)


def test_naive_pairs_are_the_cached_ones(pairs):
    train, batches = pairs.train, [[0, 1, 2], [3, 5]]
    naive = DataLoader(pair_loader.NaivePairs(train, pairs.data_path, (32, 16)), batch_sampler=batches)
    pair_loader.check_equal(make_loader(train, batches, 0, torch.device("cpu")), naive)
    train.boxes = train.boxes + [40, 0, 0, 0]  # other people than those in the cache
    with pytest.raises(AssertionError, match="not those"):
        pair_loader.check_equal(make_loader(train, batches, 0, torch.device("cpu")), naive)


def test_naive_encoding_gives_the_logits_of_encoding_each_person_once(pairs):
    train = pairs.train
    model = TwoStageInteractionClassifier(build_encoder("cnn"), len(train.feature_names)).eval()
    rows = list(range(6))
    dataset = pair_loader.NaivePairs(train, pairs.data_path, (32, 16))
    batch = next(iter(DataLoader(dataset, batch_size=len(rows))))
    with torch.no_grad():
        naive = stage1_epoch.naive_logits(model, batch)
        torch.testing.assert_close(model(train.__getitems__(rows)), naive, rtol=1e-4, atol=1e-5)


def test_people_are_counted_once_per_batch(pairs):
    train = pairs.train
    whole = crops_per_pair.crops_per_pair(train, len(train), 0, Processes(0, 1, torch.device("cpu")))
    people = set(train.left.tolist()) | set(train.right.tolist())
    assert whole == len(people) / len(train)
    assert crops_per_pair.crops_per_pair(train, 1, 0, Processes(0, 1, torch.device("cpu"))) == 2


def test_naive_index_finds_the_same_pairs(tmp_path):
    (path,) = write_world(tmp_path, sequences=1, frames=3)
    assert len(read_sequence(path).boxes) == 3 * PEOPLE
    jrdb_index.check_equal(path)
    found = jrdb_index.index_everything(tmp_path)
    assert found["pairs"] == 3 * PEOPLE * (PEOPLE - 1) // 2
    content = json.loads(path.read_text())
    content["labels"]["000000.jpg"][0]["H-interaction"] = []
    content["labels"]["000000.jpg"][1]["H-interaction"] = []
    assert sum(pair["label"] for pair in jrdb_index.naive_pairs(content["labels"])) < sum(
        pair["label"] for pair in jrdb_index.naive_pairs(json.loads(path.read_text())["labels"])
    )


def test_the_requirement_model_has_the_requirement_size():
    anomaly_step.check_requirement_model()


def test_scale_counts_the_frames_it_wrote(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "FRAMES_PER_SCENARIO", 4)
    sources = scale.write_native_frame(tmp_path)
    world = tmp_path / "world"
    scale.write_anovox(world, 80, sources)
    assert len(list(world.glob("*/RGB-CAM*/*.png"))) == 80
    found = scale.load_frames(world)
    assert found["load"] > 0 and found["peak"] >= 0
