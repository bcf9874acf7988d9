"""The benchmarks' arithmetic, and that every naive reference computes what it is compared with."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks import __main__ as everything
from benchmarks import epochs, gpu, measure, verdict_time, worker
from benchmarks.scripts import SCRIPTS, prepare
from datasets.jrdb.labels import IMAGE_FOLDER, LABEL_FOLDER
from tests.jrdb_files import load
from tests.jrdb_world import write_world
from tests.tiny_runs import flags_of, private_cache
from utils.run.folder import REPO_ROOT
from utils.training.distributed import make_loader


def test_a_ratio_is_taken_round_by_round_and_judged_by_its_worse_quartile():
    slow = measure.Timing([4, 6, 10, 8], [0.0] * 4)
    fast = measure.Timing([2, 2, 2, 2], [0.0] * 4)
    ratio = measure.times_faster(slow, fast)
    assert (ratio.median, ratio.low, ratio.high, ratio.n) == (3.5, 2.75, 4.25, 4)
    assert measure.verdict(ratio, at_least=2.7) == "met"
    assert measure.verdict(ratio, at_least=3) == "not met"  # although the median is above 3
    assert measure.verdict(ratio, at_most=4) == "not met"
    assert measure.verdict(ratio, at_most=4.3) == "met"


def test_a_busy_machine_gives_no_verdict_it_could_have_decided():
    slow = measure.Timing([4, 6, 10, 8], [1.5] * 4)
    fast = measure.Timing([2, 2, 2, 2], [0.0] * 4)
    ratio = measure.times_faster(slow, fast)
    assert measure.verdict(ratio, at_least=3) == "inconclusive"
    assert measure.verdict(ratio, at_least=5) == "not met"
    assert measure.verdict(ratio, at_least=2) == "met"


def test_rounds_are_interleaved_and_start_with_another_variant_each(monkeypatch):
    monkeypatch.setattr(measure, "busy_cores", lambda: 0.0)
    calls = []
    variants = {name: lambda name=name: calls.append(name) or 2.0 for name in "abc"}
    timings = measure.measure(variants, rounds=3)
    assert "".join(calls) == "abc" + "abcbcacab"  # the first of each warms up
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


def test_report_writes_tables_raw_timings_and_judged_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure, "FOLDER", tmp_path)
    monkeypatch.setattr(measure, "convolution_gflops", lambda: 100.0)
    one = measure.Report("peers", "Title")
    one.timings({"ours": measure.Timing([0.5, 0.25, 1.0], [0.0] * 3)}, "ms")
    one.judge("faster", measure.Ratio(3, 2, 4, 5), at_least=2.5, aim=">= 4x")
    one.finish()
    content = json.loads((tmp_path / "peers.json").read_text())
    assert content["raw"]["ours"]["wall"] == [0.5, 0.25, 1.0]
    assert content["judged"][0]["verdict"] == "not met" and content["judged"][0]["counts"] == 2
    assert "| ours | 500 | 250 .. 1e+03 | 3 | 0.00 |" in capsys.readouterr().out
    assert "| faster | 3x | 2x | 5 | >= 2.5x | >= 4x | not met |" in everything.tables(tmp_path)


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
    return load(folder, features="crops+geometry", image_size=(32, 16), cache_dir=tmp_path / "cache")


def test_naive_pairs_are_the_cached_ones(pairs):
    train, batches = pairs.train, [[0, 1, 2], [3, 5]]
    naive = DataLoader(epochs.NaivePairs(train, pairs.data_path, (32, 16)), batch_sampler=batches)
    epochs.check_pixels(make_loader(train, batches, 0, torch.device("cpu")), naive)
    train.boxes = train.boxes + [40, 0, 0, 0]  # other people than those in the cache
    with pytest.raises(AssertionError, match="not those"):
        epochs.check_pixels(make_loader(train, batches, 0, torch.device("cpu")), naive)


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
        assert f"| `{name}` |" in (REPO_ROOT / "benchmarks" / "README.md").read_text()


LOG = """train_stage1.py: starting
train_stage1.py 1.0 on cpu, 1 process(es), run folder checkpoints/stage1_experiment_1
sample jrdb: generating the small sample (synthetic, seed 0) in data/sample_jrdb
sample jrdb: done in 2.5 s
cache crops: built in 1.5 s, 0.1 GB in data/cache/crops.npy
cache crops: 777 items read from data/cache/crops.npy
epoch 001/001 train_loss 0.5 val_loss 0.6 lr 0.001 1.6 s 812 samples/s best
verdict: LEARNED (AUROC)"""
SCRIPT = f"""
import json, pathlib, sys
print({LOG!r}, flush=True)
run = pathlib.Path("checkpoints/stage1_experiment_1")
run.mkdir(parents=True)
(run / "final.pth").touch()
test = {{"auroc": int(sys.argv[-1]) / 100}}
results = {{"wall_seconds": 1.6, "verdict": "LEARNED", "metrics": {{"test": test}}}}
(run / "results.json").write_text(json.dumps(results))
"""


def test_parts_of_a_run_come_from_what_it_says_and_leaves(tmp_path, monkeypatch, capsys):
    def checkout(folder):
        (folder / "run.py").write_text(SCRIPT)
        return folder

    monkeypatch.setattr(verdict_time, "copy_checkout", checkout)
    monkeypatch.setitem(verdict_time.COMMANDS, "stage 1", ["run.py"])
    found = verdict_time.measure_command("stage 1", checkout(tmp_path), seed=42)
    assert (found["generation"], found["cache"], found["training"]) == (2.5, 1.5, 1.6)
    assert 0 < found["imports"] < found["seconds"] and found["cpu"] > 0
    assert found["figure"] == 0.42 and 0 <= found["report"] < found["seconds"]
    verdict_time.main(["--seeds", "2", "--only", "stage 1"])
    assert "auroc 0.425 (0.42 to 0.43) | 2 of 2 |" in capsys.readouterr().out


def test_a_copy_of_the_checkout_holds_the_code_alone(tmp_path):
    copy = verdict_time.copy_checkout(tmp_path)
    assert (copy / "train_mae.py").is_file() and (copy / "datasets/samples/jrdb").is_dir()
    assert not any((copy / name).exists() for name in ("data", "checkpoints", ".git"))


@pytest.fixture
def tiny_gpu(monkeypatch):
    for name in SCRIPTS:
        more = ["--features", "geometry"] if name == "train_stage2" else []
        monkeypatch.setitem(gpu.TINY, name, [*map(str, flags_of(name)), *more])
    with private_cache():
        yield gpu.Checks("cpu", tiny=True)


def test_the_prepared_gpu_script_compares_losses(tiny_gpu, monkeypatch, capsys):
    tiny_gpu.same_losses("train_stage1")
    assert "ok train_stage1, 3 steps: losses differ from the CPU's by 0.0e+00" in capsys.readouterr().out
    losses = {"cpu": torch.ones(3), "cuda": torch.tensor([1, 1, 1.01])}
    monkeypatch.setattr(tiny_gpu, "device", "cuda")
    monkeypatch.setattr(tiny_gpu, "losses", lambda name, device: losses[device])
    tiny_gpu.same_losses("train_mae")
    assert "FAILED train_mae" in capsys.readouterr().out and tiny_gpu.failed == 1


@pytest.mark.long
def test_the_prepared_gpu_script_runs_on_a_cpu(tiny_gpu, capsys):
    assert gpu.main(["--device", "cpu", "--tiny"]) == 0
    out = capsys.readouterr().out
    assert "FAILED " not in out.replace("0 FAILED", "") and "gloo 1" in out and "--amp --compile" in out
