"""The run folder, new for each run; every file in it is complete or absent, never half-written."""

import contextlib
import errno
import io
import itertools
import json
import math
import os
import zipfile
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from utils.run.errors import CommandError, some

REPO_ROOT = Path(__file__).resolve().parents[2]
MAX_JSON_BYTES = 64_000_000


def create_run_folder(output_dir: str | Path, name: str) -> Path:
    """Make `output_dir/NAME_YYYYmmdd_HHMMSS`, with a number appended if that second is taken.
    mkdir is exclusive: no two runs share a folder. CommandError if `output_dir` cannot be written."""
    stem = f"{name}_{datetime.now():%Y%m%d_%H%M%S}"
    try:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            folder = Path(output_dir) / (stem if number == 1 else f"{stem}_{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        remedy = "choose one that can be written (--output_dir; to evaluate a run, copy it)"
        raise CommandError(f"cannot make a folder in {output_dir}: {error.strerror}\n{remedy}") from error


def is_finished(run: Path, epochs: int, patience: int) -> bool:
    """Whether the run has results, after this many epochs or stopped early with this patience."""
    try:
        results = read_record(run / "results.json", "epochs_run", "best_epoch")
    except CommandError:  # missing or damaged: the test pass, which writes it, is still to be done
        return False
    return results["epochs_run"] >= epochs or 0 < patience <= results["epochs_run"] - results["best_epoch"]


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write through a temporary file, so that `path` is never half-written; CommandError if that fails."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        room = "; make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise CommandError(f"cannot write {path}: {error.strerror}{room}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: str | Path, text: str) -> None:
    """In UTF-8; a path that Python could not decode is written as it is."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON atomically, keys in the order given; NaN and infinity become null."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def write_arrays(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Write numpy arrays atomically as a compressed .npz."""
    import numpy as np

    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    write_bytes(path, file.getvalue())


def read_arrays(path: str | Path) -> dict[str, Any]:
    """Read an .npz of plain arrays; CommandError names a file that is missing or not an .npz."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CommandError(f"cannot read {path}: {error}") from error


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object_pairs_hook for json.loads: ValueError if a key is repeated, of which only the last counts."""
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r} stands twice in an object")
    return content


def read_json(
    path: str | Path, kind: type = object, error: type[Exception] = CommandError, remedy: str = ""
) -> Any:
    """Read a JSON file of this project; `error` names a file that is missing, too large, not JSON or does not
    hold a `kind`, and ends with `remedy`."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise error(f"{path} is larger than {MAX_JSON_BYTES / 1e6:.0f} MB: not of this project{remedy}")
        text = path.read_text(encoding="utf-8-sig")  # Windows editors add a BOM
        content = json.loads(text, object_pairs_hook=unique_keys)
    except OSError as cause:
        raise error(f"cannot read {path}: {cause.strerror}{remedy}") from cause
    except (ValueError, RecursionError) as cause:
        raise error(f"{path} is not JSON: {cause}{remedy}") from cause
    if not isinstance(content, kind):
        raise error(f"{path}: a JSON object is expected, found a {type(content).__name__}{remedy}")
    return content


def read_record(path: Path, *keys: str) -> dict[str, Any]:
    """A JSON record of a run; CommandError if a key is missing or a section is not an object, because it is
    another file or somebody edited it."""
    value = read_json(path, dict)
    sections = [key for key in ("args", "dataset") if not isinstance(value.get(key), dict)]
    if lacking := [key for key in keys if key not in value or key in sections]:
        raise CommandError(f"{path} has no {some(lacking)}, which every run writes: was it edited?")
    return value


def plain(value: Any) -> Any:
    """Convert numpy values, tuples and paths to plain Python values, non-finite floats to None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
