"""The built-in samples: small synthetic worlds in the true on-disk layouts, generated once and reused.

    ensure_sample("jrdb", "data/sample_jrdb")

SYNTHETIC.json in a sample holds its kind, generator version, size and seed. A sample of another version, size
or seed is rebuilt; a folder that is not a sample is left alone.
"""

import importlib
import json
import shutil
from pathlib import Path

from datasets.cache import build_once
from utils.run.errors import CommandError, suggest
from utils.run.log import LOG

KINDS = ("anovox", "jrdb", "ultrasound")


def ensure_sample(kind: str, directory: Path | str, size: str = "small", seed: int = 0) -> Path:
    """The folder of the sample, generated on first use. Of several processes one builds, the others wait.
    Raises CommandError for an unknown kind or size, and if `directory` holds anything but a sample."""
    directory = Path(directory)
    if kind not in KINDS:
        raise CommandError(f"sample {kind!r}: no such kind; known: {', '.join(KINDS)}{suggest(kind, KINDS)}")
    generator = importlib.import_module(f"datasets.samples.{kind}")
    if size not in (sizes := list(generator.SIZES)):
        known = f"sizes: {', '.join(sizes)}{suggest(size, sizes)}"
        raise CommandError(f"sample {kind}: no size {size!r}; {known}")
    wanted = {"kind": kind, "version": generator.VERSION, "size": size, "seed": seed}

    about = directory / "SYNTHETIC.json"

    def find() -> Path | None:
        try:
            return directory if wanted.items() <= json.loads(about.read_text()).items() else None
        except (OSError, ValueError):  # there is none, or it is damaged
            return None

    def build(folder: Path) -> None:
        in_use = directory.exists() and (not directory.is_dir() or any(directory.iterdir()))
        if in_use and not about.exists():
            raise CommandError(
                f"{directory}: in the way of the built-in sample, but not a sample itself\n"
                "  move it, or give another folder: one with your own data, or a new one for the sample"
            )
        LOG.info(f"sample {kind}: generating the {size} sample (synthetic, seed {seed}) in {directory}")
        folder.mkdir()
        generator.generate(folder, size, seed)
        if directory.exists():
            shutil.rmtree(directory)

    return build_once(directory, f"sample {kind}", find, build)


def write_json(path: Path, content: dict, indent: int | None = None) -> None:
    path.write_text(json.dumps(content, indent=indent) + "\n")
