"""Checkpoints: plain Python values and tensors, written whole or not at all, loaded with
weights_only=True."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from utils.run.errors import CommandError
from utils.run.folder import write_bytes, write_json

FORMAT_VERSION = 1


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write `state` through a temporary name, so that a crash leaves the old file or the whole new one.

    Keys every script uses: script, epoch (finished epochs), step (steps done of the next epoch), totals (its
    sums so far, one row per process), seconds (what it took so far), model, optimizer, scheduler, scaler,
    best {metric: {value, epoch}}, wait, history, threshold, args.
    `format_version` is added.
    """
    buffer = io.BytesIO()
    torch.save({"format_version": FORMAT_VERSION, **state}, buffer)
    try:
        write_bytes(path, buffer.getbuffer())
    except OSError as error:
        raise CommandError(
            f"cannot save {path}: {error.strerror}; the checkpoint before it is intact\n"
            "make room, then go on with --resume"
        ) from error


def save_epoch(
    run: Path,
    state: dict[str, Any],
    improved: list[str],
    save_interval: int,
    optimizer: Any,
    scheduler: Any,
    scaler: Any,
) -> None:
    """After an epoch: best_NAME.pth for every name in `improved`, checkpoint_epoch_N.pth every
    `save_interval` epochs, history.json and last.pth.
    """
    for name in improved:
        save_checkpoint(run / f"best_{name}.pth", state)
    if save_interval and state["epoch"] % save_interval == 0:
        save_checkpoint(run / f"checkpoint_epoch_{state['epoch']}.pth", state)
    write_json(run / "history.json", state["history"])
    save_last(run, state, optimizer, scheduler, scaler)


def save_last(run: Path, state: dict[str, Any], optimizer: Any, scheduler: Any, scaler: Any) -> None:
    """last.pth, which alone also holds what resuming needs: optimizer, scheduler and scaler."""
    parts = {"optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    save_checkpoint(run / "last.pth", state | {name: part.state_dict() for name, part in parts.items()})


def restore(state: dict[str, Any], **parts: Any) -> None:
    """Load state[name] into each part: model, optimizer, scheduler, scaler, whatever has load_state_dict."""
    for name, part in parts.items():
        part.load_state_dict(state[name])


def load_checkpoint(path: str | Path, script: str | None = None, **expected: list[str]) -> dict[str, Any]:
    """Load a checkpoint on the CPU. `script`: the script it must come from; `expected`: lists of names it
    must agree on, such as class_names, since a weight has no meaning under another name.

    Raises CommandError for a file that is missing, damaged, of a newer format, of another script, or that
    holds anything but tensors and plain values (nothing in it is ever imported or called).
    """
    path = Path(path)
    if not path.is_file():
        raise CommandError(f"no checkpoint at {path}")
    check_whole(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CommandError(
            f"{path} holds more than tensors and plain values and was not loaded\n"
            f"found: {unsafe_globals(path)}\nuse a checkpoint written by this project"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CommandError(f"{path} is damaged or no checkpoint: {reason}") from error
    if not isinstance(state, dict) or "format_version" not in state:
        raise CommandError(f"{path} is not a checkpoint of this project (no format_version)")
    version = state["format_version"]
    if version > FORMAT_VERSION:
        raise CommandError(f"{path} has format {version}, newer than {FORMAT_VERSION}: update the code")
    if script is not None and state["script"] != script:
        raise CommandError(f"{path} was written by {state['script']}, not by {script}")
    check_names(path, state, **expected)
    return state


def check_whole(path: Path) -> None:
    """Raise CommandError unless this is the archive that torch.save writes, each part with its checksum.

    torch itself compares none: a damaged weight would be loaded without a word.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
        raise CommandError(f"{path} is damaged or no checkpoint: {error}") from error
    if part is not None:
        raise CommandError(f"{path} is damaged or no checkpoint: the checksum of {part} is wrong")


def check_names(path: Path, state: dict[str, Any], **expected: list[str]) -> None:
    """Raise CommandError when the checkpoint's lists of names are not the expected ones."""
    for key, names in expected.items():
        if state.get(key) != names:
            changed = sorted(set(state.get(key) or []) ^ set(names)) or "the same names in another order"
            raise CommandError(f"{path} was trained with other {key} than this code and data have: {changed}")


def unsafe_globals(path: Path) -> str:
    """The names in the file that weights_only refuses, or why they can not be listed."""
    try:
        return ", ".join(torch.serialization.get_unsafe_globals_in_checkpoint(path)) or "nothing named"
    except (RuntimeError, pickle.UnpicklingError, ValueError) as error:
        return f"not listed ({type(error).__name__})"
