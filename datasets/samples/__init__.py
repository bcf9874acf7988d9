"""The built-in samples: small synthetic worlds in the true on-disk layouts, generated once and reused.

    ensure_sample("jrdb", "data/sample_jrdb")

SYNTHETIC.json in a sample holds its kind, generator version, size and seed, and a hash of its files. A sample
of another version, size or seed is rebuilt; a folder with any other file in it is left alone.
"""

import importlib
import json
import shutil
from pathlib import Path

from datasets.cache import build_once, fingerprint
from datasets.images import walk
from utils.run.errors import CommandError, suggest
from utils.run.log import LOG

KINDS, ABOUT = ("anovox", "jrdb", "ultrasound"), "SYNTHETIC.json"


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

    def find() -> Path | None:
        return directory if wanted.items() <= read_about(directory).items() else None

    def build(folder: Path) -> None:
        in_use = directory.exists() and (not directory.is_dir() or any(directory.iterdir()))
        about = read_about(directory)
        # Samples made before this hash was kept are taken for untouched.
        if in_use and (not about or about.get("files", "") not in ("", hash_files(directory))):
            raise CommandError(
                f"{directory}: in the way of the built-in sample, with files that are not of one\n"
                "  move it, or give another folder: one with your own data, or a new one for the sample"
            )
        LOG.info(f"sample {kind}: generating the {size} sample (synthetic, seed {seed}) in {directory}")
        folder.mkdir()
        generator.generate(folder, size, seed)
        write_json(folder / ABOUT, read_about(folder) | {"files": hash_files(folder)}, indent=2)
        if directory.exists():
            shutil.rmtree(directory)

    return build_once(directory, f"sample {kind}", find, build)


def read_about(directory: Path) -> dict:
    """SYNTHETIC.json of a sample; {} if there is none, or it is damaged."""
    try:
        return json.loads((directory / ABOUT).read_text())
    except (OSError, ValueError):
        return {}


def hash_files(directory: Path) -> str:
    """A hash of the names and sizes of all files but SYNTHETIC.json and those of operating systems."""
    sizes = {path.relative_to(directory).as_posix(): path.stat().st_size for path in walk(directory)}
    return fingerprint({name: size for name, size in sizes.items() if name != ABOUT})


def write_json(path: Path, content: dict, indent: int | None = None) -> None:
    path.write_text(json.dumps(content, indent=indent) + "\n")
