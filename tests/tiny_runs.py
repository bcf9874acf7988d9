"""One finished run per training script on the smallest data there is, made once per session; read only."""

import contextlib
import functools
import importlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from datasets import cache
from datasets.samples.ultrasound import generate
from tests.anovox_world import tiny_sample
from tests.jrdb_world import write_world

NAMES = ("train_anomaly_with_labels", "train_ddp", "train_mae", "train_stage1", "train_stage2")
EXCLUDE = ("--exclude", "images_without_row", "rows_without_image")


@functools.cache
def new_folder(name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"tiny_{name}_"))


@contextlib.contextmanager
def private_cache() -> Iterator[None]:
    """Decoded images of these tests go to a folder of their own, not into the checkout."""
    original, cache.CACHE_DIR = cache.CACHE_DIR, new_folder("cache")
    try:
        yield
    finally:
        cache.CACHE_DIR = original


@functools.cache
def jrdb() -> Path:
    """Labels without images: 4 train, 2 val and 6 test sequences."""
    return write_world(new_folder("jrdb"), {"train": 4, "val": 2, "test": 6})


@functools.cache
def ultrasound() -> Path:
    """The images of 16 healthy subjects; the table is two folders up."""
    generate(new_folder("ultrasound"), "tiny", seed=0, workers=1)
    return new_folder("ultrasound") / "TA/Healthy/Images"


@functools.cache
def run_of(name: str) -> Path:
    """The run folder of a training script: a few epochs."""
    if name == "train_anomaly_with_labels":
        flags = ["--data_path", tiny_sample(), "--image_size", 64, 96, "--max_points", 128, "--epochs", 2]
    elif name in ("train_ddp", "train_mae"):
        flags = ["--image_dir", ultrasound(), *EXCLUDE, "--model", "cnn", "--image_size", 32]
        flags += ["--epochs", 3, "--batch_size", 8]
    elif name == "train_stage1":
        flags = ["--data_path", jrdb(), "--features", "geometry", "--epochs", 2]
    else:
        flags = [
            "--data_path",
            jrdb(),
            "--stage1_checkpoint",
            run_of("train_stage1"),
            "--epochs",
            4,
            "--lr",
            3e-3,
        ]
    script = importlib.import_module(name)
    output = new_folder(f"run_{name}")
    with private_cache():
        argv = [*flags, "--device", "cpu", "--output_dir", output]
        script.main(script.parse_args([str(flag) for flag in argv]))
    return next(output.iterdir())


def copy_of_run(name: str, folder: Path) -> Path:
    """A copy that a test may write into or damage."""
    return Path(shutil.copytree(run_of(name), folder / run_of(name).name))
