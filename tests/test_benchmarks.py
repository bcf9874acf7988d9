"""The benchmarks' arithmetic, and that every naive reference computes what it is compared with."""

import importlib
import json
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import __main__ as everything
from benchmarks import gpu, loading, measure, peers, verdict_time
from benchmarks.scripts import SCRIPTS, prepare
from datasets.jrdb.labels import IMAGE_FOLDER, LABEL_FOLDER
from tests.jrdb_files import load
from tests.jrdb_world import write_world
from tests.tiny_runs import flags_of
from utils.run.folder import REPO_ROOT
from utils.training.distributed import make_loader


def test_a_ratio_is_judged_by_its_worse_quartile(capsys):
    ratios = np.array([4, 6, 10, 8]) / 2  # median 3.5, quartiles 2.75 and 4.25
    measure.judge("a", ratios, at_least=2.7)
    measure.judge("b", ratios, at_most=4.3)
    measure.judge("c", ratios, at_least=3)  # although the median is above 3
    measure.judge("d", ratios, at_most=4)
    said = capsys.readouterr().out
    assert "**a: 3.5x** (worse quartile 2.75x); demand >= 2.7x: met." in said
    assert "demand <= 4.3x: met." in said and "demand >= 3x: not met." in said
    assert "**d: 3.5x** (worse quartile 4.25x); demand <= 4x: not met." in said


def test_rounds_are_interleaved_and_start_with_another_variant_each(capsys):
    calls = []
    variants = {name: lambda name=name: calls.append(name) or time.sleep(0.2) for name in "abc"}
    seconds = measure.measure(variants, quick=True)
    assert "".join(calls) == "abc" + "abcbca"  # the first of each warms up
    assert seconds["b"] == pytest.approx(np.full(2, 0.2), rel=0.5)
    said = capsys.readouterr().out
    assert "| variant | median ms | least | most |" in said and "2 rounds." in said


PEER = """
import sys
from pathlib import Path
for k, _ in enumerate(sys.stdin):
    print("trained" * (1 // (k < 2)), flush=True)
"""


def test_a_peer_trains_once_per_call_and_its_end_is_an_error():
    peer = peers.Peer(sys.executable, "-c", PEER)
    peer(), peer()
    with pytest.raises(RuntimeError, match="ended with 1"):
        peer()


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
    naive = partial(loading.decode_pairs, train, pairs.data_path, (32, 16), batches)
    loading.check_pixels(make_loader(train, batches, 0, torch.device("cpu")), naive())
    train.boxes = train.boxes + [40, 0, 0, 0]  # other people than those in the cache
    with pytest.raises(AssertionError, match="not those"):
        loading.check_pixels(make_loader(train, batches, 0, torch.device("cpu")), naive())


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_made_ready_as_its_main_does(name):
    """And trains: the same batch twice costs less."""
    argv = [str(flag) for flag in flags_of(name)]
    if name == "train_stage2":  # without a stage 1 run
        del argv[(start := argv.index("--stage1_checkpoint")) : start + 2]
        argv += ["--features", "geometry"]
    training = prepare(name, argv)
    losses = [training.epoch(steps=1)["loss"] for _ in range(2)]
    assert 0 < losses[1] < losses[0]


@pytest.mark.parametrize("name", everything.NAMES)
def test_every_benchmark_is_there_and_in_the_readme(name):
    assert importlib.import_module(f"benchmarks.{name}").run is measure.run
    assert f"| `{name}` |" in (REPO_ROOT / "benchmarks" / "README.md").read_text()


LOG = """train_stage1.py: starting
train_stage1.py 1.0 on cpu, 1 process(es), run folder checkpoints/stage1_experiment_1
sample jrdb: generating the small sample (synthetic, seed 0) in data/sample_jrdb
sample jrdb: built in 2.5 s in data/sample_jrdb
cache crops (777 items): built in 1.5 s in data/cache/crops.npy
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
    (tmp_path / "run.py").write_text(SCRIPT)
    me = ["-c", "user.email=a", "-c", "user.name=a"]
    for command in (["init", "-q"], ["add", "run.py"], [*me, "commit", "-qma"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(verdict_time, "REPO_ROOT", tmp_path)
    monkeypatch.setitem(verdict_time.COMMANDS, "stage 1", ["run.py"])
    found = verdict_time.measure_command("stage 1", tmp_path, seed=42)
    assert (found["generation"], found["cache"], found["training"]) == (2.5, 1.5, 1.6)
    assert 0 < found["imports"] < found["seconds"] and found["cpu"] > 0
    assert found["figure"] == 0.42 and 0 <= found["report"] < found["seconds"]
    verdict_time.main(["--seeds", "2", "--only", "stage 1"])
    assert "auroc 0.425 (0.42 to 0.43) | 2 of 2 |" in capsys.readouterr().out


def test_the_peers_train_on_the_same_pixels():
    training = prepare("train_mae", [*map(str, flags_of("train_mae")), "--image_size", str(peers.PIXELS)])
    rows = peers.rows_of(training, 8)
    peers.check_equal(rows, training)
    with pytest.raises(AssertionError, match="not ours"):
        peers.check_equal(rows[::-1], training)


@pytest.mark.long
def test_the_prepared_gpu_script_runs_on_a_cpu(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(gpu, "STEPS", 2)
    for name in SCRIPTS[:1] + SCRIPTS[2:]:
        monkeypatch.setitem(gpu.TINY, name, " ".join(map(str, flags_of(name))))
    gpu.sizes()
    gpu.peers()
    out = capsys.readouterr().out
    assert out.count("--amp --compile") == 3 and "| torchvision |" in out
