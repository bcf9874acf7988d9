"""The built-in samples: small synthetic worlds in the true on-disk layouts, written once and reused.

    ensure_sample("jrdb", "data/sample_jrdb")

Its SYNTHETIC.json holds its kind, generator version, size and seed. A sample of ours of another version, size
or seed is rebuilt; any other folder is left alone.
"""

import importlib
import json
import os
import shutil
import time
from pathlib import Path

from datasets.cache import lock
from utils.run.errors import CommandError, suggest
from utils.run.log import LOG

KINDS = ("anovox", "jrdb", "ultrasound")


def ensure_sample(kind: str, directory: Path | str, size: str = "small", seed: int = 0) -> Path:
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
    if wanted.items() <= (read_about(directory) or {}).items():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with lock(directory.parent / f".{directory.name}.lock", f"sample {kind}"):
        about = read_about(directory)
        if about and wanted.items() <= about.items():
            return directory
        in_use = directory.exists() and (not directory.is_dir() or any(directory.iterdir()))
        if in_use and about is None:
            raise CommandError(
                f"{directory}: in the way of the built-in sample and not one itself\n"
                "  move it, or give another folder: one of your own data, or a new one for the sample"
            )
        LOG.info(f"sample {kind}: generating the {size} sample (synthetic, seed {seed}) in {directory}")
        began = time.perf_counter()
        building = directory.parent / f".{directory.name}.building"
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        generator.generate(building, size, seed)
        if directory.exists():
            shutil.rmtree(directory)
        os.rename(building, directory)
        LOG.info(f"sample {kind}: done in {time.perf_counter() - began:.1f} s")
    return directory


def write_json(path: Path, content: dict, indent: int | None = None) -> None:
    path.write_text(json.dumps(content, indent=indent) + "\n")


def read_about(directory: Path) -> dict | None:
    """What the folder says of itself, or None where it is no sample of ours."""
    try:
        return json.loads((directory / "SYNTHETIC.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except json.JSONDecodeError:
        return {}
