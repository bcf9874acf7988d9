"""Parse the label files of a run once and keep the columns in one file, an index, under data/cache.

As in cache.py, the file's name is a fingerprint of everything that determines its content, the holder of a
lock builds it, and a damaged file (zip has checksums) is rebuilt. Labels with errors leave no file.
"""

import io
import json
import zipfile
import zlib
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np

from datasets import cache
from datasets.jrdb import classes, labels
from datasets.jrdb.flags import LabelRules
from datasets.jrdb.frames import frame_number, list_images
from datasets.jrdb.labels import IMAGE_FOLDER, Sequence
from utils.run.errors import counted
from utils.run.folder import write_bytes
from utils.run.log import LOG, format_size

COLUMNS = [field.name for field in fields(Sequence) if field.type is np.ndarray]
SMALL = 20_000_000  # bytes of JSON: below this, parsing takes about a second and needs no index
# Source code is part of the fingerprint: a changed rule or class gives a new index.
CODE = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))]


def read_indexed(
    paths: list[Path], data_path: Path, rules: LabelRules, cache_dir: Path | None = None
) -> list[Sequence]:
    """labels.read_sequences(paths, data_path, rules), from the index if there is one."""
    files = cache.describe_files(paths)
    size = sum(size for _, size, _ in files)
    if size < SMALL:
        return labels.read_sequences(paths, data_path, rules)
    # Of the images, only their names matter, and the first of each sequence for the panorama's size.
    folders = [data_path / IMAGE_FOLDER / path.stem for path in paths]
    images = [list_images(folder) for folder in folders]
    first = [folder / min(numbered, key=frame_number) for folder, names in zip(folders, images, strict=True)
             if (numbered := [name for name in names if frame_number(name) is not None])]  # fmt: skip
    read = [files, images, cache.describe_files(first), vars(rules), classes.read_class_map(rules.class_map)]
    path = Path(cache_dir or cache.CACHE_DIR, f"jrdb_index-{cache.fingerprint(read, CODE)[:20]}.npz")

    def build(temporary: Path) -> None:
        LOG.info(f"cache jrdb_index: building from {len(paths)} label files, {format_size(size)}")
        sequences, content = labels.read_sequences(paths, data_path, rules), io.BytesIO()
        plain = [{k: v for k, v in vars(s).items() if k not in COLUMNS} for s in sequences]
        arrays = {f"{k} {c}": getattr(s, c) for k, s in enumerate(sequences) for c in COLUMNS}
        np.savez(content, index=np.array(json.dumps(plain)), **arrays)
        write_bytes(temporary, content.getbuffer())

    found = cache.build_once(path, "cache jrdb_index", partial(load, path), build)
    LOG.info(f"cache jrdb_index: {counted(len(found), 'sequences')} read from {path}")
    return found


def load(path: Path) -> list[Sequence] | None:
    """The sequences of an index; None if it is missing or damaged."""
    try:
        with np.load(path) as file:  # zip compares its checksums
            plain = json.loads(str(file["index"]))
            return [Sequence(**v, **{c: file[f"{k} {c}"] for c in COLUMNS}) for k, v in enumerate(plain)]
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return None
