"""The sequences of a run, read once: later runs find their columns in one file under data/cache.

As in cache.py, the file's name is a fingerprint of all that decides what is in it, it is written under a
temporary name by whoever holds the lock, and a file that is cut short or damaged (zip keeps checksums) is
built again. Refused labels leave no file.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np

from datasets import cache
from datasets.jrdb import classes, labels
from datasets.jrdb.flags import LabelRules
from datasets.jrdb.labels import IMAGE_FOLDER, Sequence, list_images, read_sequence
from datasets.jrdb.problems import Problems
from utils.run.folder import write_bytes
from utils.run.log import format_size

KIND = "jrdb_index"
COLUMNS = [field.name for field in fields(Sequence) if field.type is np.ndarray]
SMALL = 1_000_000  # bytes of JSON that are parsed in a moment and not worth a file
# The source of what reads and keeps the labels: whoever changes a rule or a class gets a new index.
CODE = [Path(file).read_text(encoding="utf-8") for file in (__file__, labels.__file__, classes.__file__)]


def read_sequences(
    paths: list[Path], data_path: Path | None = None, rules: LabelRules | None = None,
    cache_dir: Path | None = None, log: Callable[[str], None] = print,
) -> list[Sequence]:  # fmt: skip
    """What labels.read_sequence gives for these files, in this order, parsed where no index holds it. One
    DataError for all that is wrong in them, another for missing files."""
    rules = rules or LabelRules()
    files = cache.describe_files(paths)
    size = sum(size for _, size, _ in files)

    def parse() -> list[Sequence]:
        problems = Problems()
        sequences = [read_sequence(path, data_path, rules, problems) for path in paths]
        problems.raise_any()
        return sequences

    def build() -> None:
        log(f"cache {KIND}: building from {len(paths)} label files, {format_size(size)}")
        sequences, content = parse(), io.BytesIO()
        plain = [{k: v for k, v in vars(s).items() if k not in COLUMNS} for s in sequences]
        arrays = {f"{k} {c}": getattr(s, c) for k, s in enumerate(sequences) for c in COLUMNS}
        np.savez(content, index=np.array(json.dumps(plain)), **arrays)
        write_bytes(path, content.getbuffer())

    if size < SMALL:
        return parse()
    # Of images the names count and, for the panorama's size, each sequence's first one.
    folders = [data_path / IMAGE_FOLDER / path.stem for path in paths] if data_path else []
    images = [list_images(folder) for folder in folders]
    first = [folder / names[0] for folder, names in zip(folders, images, strict=True) if names]
    read = [files, images, cache.describe_files(first), vars(rules), classes.read_class_map(rules.class_map)]
    key = cache.fingerprint(read, CODE)
    path = (Path(cache_dir) if cache_dir else cache.CACHE_DIR) / f"{KIND}-{key[:20]}.npz"
    return cache.load_or_build(KIND, path, partial(load, path), build, log, "sequences")


def load(path: Path) -> list[Sequence] | None:
    """The sequences of a complete file; None where there is none, or a damaged one."""
    try:
        with np.load(path) as file:  # zip's checksums are compared
            plain = json.loads(str(file["index"]))
            return [Sequence(**v, **{c: file[f"{k} {c}"] for c in COLUMNS}) for k, v in enumerate(plain)]
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return None
