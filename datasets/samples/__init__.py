"""The built-in samples: small synthetic worlds in the true on-disk layouts, written once and reused.

    ensure_sample("jrdb", "data/sample_jrdb")

A finished sample holds a DONE file with its kind, generator version, size and seed. A folder without it, or
of another version, size or seed, is rebuilt, as long as it is a sample of ours: any other is left alone.
"""

import importlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from datasets.cache import lock
from utils.run.errors import CommandError, suggest

KINDS = ("anovox", "jrdb", "ultrasound")


def ensure_sample(
    kind: str, directory: Path | str, size: str = "small", seed: int = 0, log: Callable[[str], None] = print,
    workers: int | None = None,
) -> Path:  # fmt: skip
    """Folder of the sample, generated on first use. Of several processes one builds, the others wait.
    CommandError for an unknown kind or size, and for a folder in the way that is not a sample."""
    directory = Path(directory)
    if kind not in KINDS:
        raise CommandError(f"sample {kind!r}: no such kind; known: {', '.join(KINDS)}{suggest(kind, KINDS)}")
    generator = importlib.import_module(f"datasets.samples.{kind}")
    if size not in (sizes := list(generator.SIZES)):
        known = f"sizes: {', '.join(sizes)}{suggest(size, sizes)}"
        raise CommandError(f"sample {kind}: no size {size!r}; {known}")
    wanted = {"kind": kind, "version": generator.VERSION, "size": size, "seed": seed}
    if read_done(directory) == wanted:
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with lock(directory.parent / f".{directory.name}.lock", f"sample {kind}", log):
        if read_done(directory) == wanted:
            return directory
        check_replaceable(directory)
        log(f"sample {kind}: generating the {size} sample (synthetic, seed {seed}) in {directory}")
        began = time.perf_counter()
        building = directory.parent / f".{directory.name}.building"
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        generator.generate(building, size, seed, workers)
        write_json(building / "DONE", wanted)
        if directory.exists():
            shutil.rmtree(directory)
        os.rename(building, directory)
        log(f"sample {kind}: done in {time.perf_counter() - began:.1f} s")
    return directory


def write_json(path: Path, content: dict, indent: int | None = None) -> None:
    path.write_text(json.dumps(content, indent=indent) + "\n")


def read_done(directory: Path) -> dict | None:
    """What the folder says it is, or None where it is not a finished sample."""
    try:
        return json.loads((directory / "DONE").read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None


def check_replaceable(directory: Path) -> None:
    """Only an empty folder or one of our samples may be replaced: never somebody's data."""
    ours = any((directory / name).exists() for name in ("SYNTHETIC.json", "DONE"))
    if directory.exists() and not ours and not (directory.is_dir() and not any(directory.iterdir())):
        raise CommandError(
            f"{directory}: in the way of the built-in sample and not one itself\n"
            "  move it, or give another folder: one of your own data, or a new one for the sample"
        )
