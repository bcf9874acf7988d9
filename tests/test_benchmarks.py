"""The benchmarks' arithmetic, and that every naive reference computes what it is compared with."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks import __main__ as everything
from benchmarks import pairs as pair_benchmarks
from benchmarks import report, resources, scale, timing, worker
from benchmarks.scripts import SCRIPTS, prepare
from datasets.jrdb import index
from datasets.jrdb.dataset import load_pair_datasets
from datasets.jrdb.labels import IMAGE_FOLDER, LABEL_FOLDER
from models.encoders import build_encoder
from models.pairs import PairClassifier
from tests.jrdb_world import write_world
from tests.tiny_runs import flags_of, private_cache
from utils.run.folder import REPO_ROOT
from utils.training.distributed import make_loader


def test_a_ratio_is_taken_round_by_round_and_judged_by_its_worse_quartile():
    slow = timing.Timing([4, 6, 10, 8], [0.0] * 4)
    fast = timing.Timing([2, 2, 2, 2], [0.0] * 4)
    ratio = timing.times_faster(slow, fast)
    assert (ratio.median, ratio.low, ratio.high, ratio.n) == (3.5, 2.75, 4.25, 4)
    assert timing.verdict(ratio, at_least=2.7) == "met"
    assert timing.verdict(ratio, at_least=3) == "not met"  # although the median is above 3
    assert timing.verdict(ratio, at_most=4) == "not met"
    assert timing.verdict(ratio, at_most=4.3) == "met"


def test_a_busy_machine_gives_no_verdict_it_could_have_decided():
    slow = timing.Timing([4, 6, 10, 8], [1.5] * 4)
    fast = timing.Timing([2, 2, 2, 2], [0.0] * 4)
    ratio = timing.times_faster(slow, fast)
    assert timing.verdict(ratio, at_least=3) == "inconclusive"
    assert timing.verdict(ratio, at_least=5) == "not met"
    assert timing.verdict(ratio, at_least=2) == "met"


def test_rounds_are_interleaved_and_start_with_another_variant_each(monkeypatch):
    monkeypatch.setattr(timing, "busy_cores", lambda: 0.0)
    calls = []
    variants = {name: lambda name=name: calls.append(name) or 2.0 for name in "abc"}
    timings = timing.measure(variants, rounds=3, least=0)
    assert "".join(calls) == "abcbcacab"
    assert timings["b"].wall == [2.0] * 3  # a variant that returns seconds is believed


WAITING = """
import sys
from benchmarks.worker import serve

serve(iter([{"round": 1}, {"round": 2}]).__next__ if sys.argv[1] == "well" else lambda: 1 / 0)
"""


def waiting(how: str) -> worker.Worker:
    return worker.Worker(how, start=[sys.executable, "-c", WAITING])


def test_a_worker_runs_once_per_call():
    with waiting("well") as one:
        seconds = [one(), one()]
    assert [answer["round"] for answer in one.answers] == [1, 2]
    assert [answer["seconds"] for answer in one.answers] == seconds
    assert one.process.returncode == 0


def test_a_worker_that_fails_says_why():
    with waiting("badly") as one, pytest.raises(RuntimeError, match="ZeroDivisionError"):
        one()


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
    one.timings({"ours": timing.Timing([0.5, 0.25, 1.0], [0.0] * 3)}, "ms")
    one.judge("faster", timing.Ratio(3, 2, 4, 5), at_least=2.5, aim=">= 4x")
    one.finish()
    content = json.loads((tmp_path / "name.json").read_text())
    assert content["raw"]["ours"]["wall"] == [0.5, 0.25, 1.0]
    assert content["judged"][0]["verdict"] == "not met" and content["judged"][0]["counts"] == 2
    assert "| ours | 500 | 250 .. 1e+03 | 3 | 0.00 |" in capsys.readouterr().out
    assert "| faster | 3x | 2x | 5 | >= 2.5x | >= 4x | not met |" in everything.tables({"name": content})


@pytest.fixture
def pairs(tmp_path):
    """A tiny JRDB folder with noisy panoramas, some people on the seam, crops cached."""
    folder = write_world(tmp_path / "jrdb", {"train": 2, "val": 1}, frames=2)
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
    naive = DataLoader(pair_benchmarks.NaivePairs(train, pairs.data_path, (32, 16)), batch_sampler=batches)
    pair_benchmarks.check_equal(make_loader(train, batches, 0, torch.device("cpu")), naive)
    train.boxes = train.boxes + [40, 0, 0, 0]  # other people than those in the cache
    with pytest.raises(AssertionError, match="not those"):
        pair_benchmarks.check_equal(make_loader(train, batches, 0, torch.device("cpu")), naive)


def test_naive_encoding_gives_the_logits_of_encoding_each_person_once(pairs):
    train = pairs.train
    model = PairClassifier(build_encoder("cnn"), len(train.feature_names)).eval()
    rows = list(range(6))
    dataset = pair_benchmarks.NaivePairs(train, pairs.data_path, (32, 16))
    batch = next(iter(DataLoader(dataset, batch_size=len(rows))))
    with torch.no_grad():
        naive = pair_benchmarks.naive_logits(model, batch)
        torch.testing.assert_close(model(train.__getitems__(rows)), naive, rtol=1e-4, atol=1e-5)


def test_the_made_up_index_is_read_from_json_once(tmp_path, monkeypatch):
    world = scale.write_jrdb(tmp_path, sequences=2, frames=3)
    monkeypatch.setattr(index, "SMALL", 0)
    run = scale.index_worker(str(world))
    cold, warm = run(), run()
    assert (cold["cached"], warm["cached"]) == (False, True) and cold["columns"] == warm["columns"]
    assert cold["frames"] == 2 * 3 and cold["boxes"] == 2 * 3 * scale.PEOPLE
    assert cold["pairs"] == 2 * 3 * scale.PEOPLE * (scale.PEOPLE - 1) // 2


def test_scale_counts_the_frames_it_wrote(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "FRAMES_PER_SCENARIO", 4)
    world = scale.write_anovox(tmp_path / "world", 80, scale.write_native_frame(tmp_path))
    assert len(list(world.glob("*/RGB-CAM*/*.png"))) == 80
    assert scale.frames_worker(str(world))()["load"] > 0


def test_operations_and_kept_bytes_of_a_linear_layer_by_hand():
    layer, inputs = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU()), torch.randn(2, 8)
    flops, kept, size, parameters = resources.count(2, layer, {"x": inputs}, lambda: layer(inputs))
    assert flops == pytest.approx(3 * 2 * 8 * 4 / 1e9)
    assert kept == pytest.approx((8 + 4) * 4 / 2**20)  # the input, and the output of the ReLU
    assert (size, parameters) == (pytest.approx(0.032), pytest.approx(36 / 1e6))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_made_ready_as_its_main_does(name):
    """And trains: the same batch twice costs less."""
    argv = [str(flag) for flag in flags_of(name)]
    if name == "train_stage2":  # of a stage 1 run that is not read
        argv += ["--features", "geometry"]
    with private_cache():
        training = prepare(name, argv)
        losses = [training.epoch(steps=1)["loss"] for _ in range(2)]
    assert 0 < losses[1] < losses[0]


def test_every_benchmark_is_there_and_has_a_title():
    for name, module in everything.BENCHMARKS.items():
        assert (
            f'def {name}(report: Report, quick: bool) -> None:\n    """'
            in (REPO_ROOT / "benchmarks" / f"{module}.py").read_text()
        )
        assert f"| `{name}` |" in everything.README.read_text()
