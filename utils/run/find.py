"""Find runs and checkpoints from what a user types: a folder, its name, a pattern, or a file in it."""

import contextlib
import glob
import re
from collections.abc import Sequence
from pathlib import Path

from utils.run.errors import CommandError, some, suggest
from utils.run.folder import read_json
from utils.tasks import TASKS

STAMP = re.compile(r"(\d{8}_\d{6})(?:_(\d+))?$")  # the end of a run folder's name


def is_run(folder: Path) -> bool:
    """Whether a training script made this folder, by its config.json, which other programs write too. A run
    that has just started holds only its log, and a file may be damaged: then the name counts."""
    with contextlib.suppress(CommandError):
        return bool(script_of(folder))
    named = "_experiment_" in folder.name and STAMP.search(folder.name)
    return bool(named) and any((folder / f).is_file() for f in ("config.json", "status.json", "train.log"))


def list_runs(output_dir: Path) -> list[Path]:
    """The run folders in `output_dir`, oldest first."""
    try:
        return sorted((folder for folder in output_dir.iterdir() if is_run(folder)), key=start_of)
    except OSError:
        return []


def start_of(folder: Path) -> tuple[str, int, str]:
    """Sort key: the time in the folder's name, then the number appended if that second was taken."""
    stamp = STAMP.search(folder.name)
    return (stamp[1], int(stamp[2] or 1), folder.name) if stamp else ("", 0, folder.name)


def is_pattern(name: str | Path) -> bool:
    """Whether * and [..] in a name are to be expanded: not if a file or folder is called so."""
    return glob.has_magic(str(name)) and not Path(name).exists()


def find_runs(names: Sequence[str], output_dir: Path) -> list[Path]:
    """The run folders that match these names (* is any text), each once; CommandError if one matches none."""
    found: dict[Path, Path] = {}
    for name in names:
        runs = [] if is_pattern(name) else [find_run(name, output_dir)]
        for place in (Path(name), output_dir / name):
            top = glob.escape(str(place.parent)) if place.parent.is_dir() else str(place.parent)
            runs = runs or sorted(filter(is_run, map(Path, glob.glob(f"{top}/{place.name}"))), key=start_of)
        if not runs:
            raise CommandError(f"no run folder matches {name}\n{known_runs(output_dir)}")
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def find_run(name: str | Path, output_dir: Path = Path("checkpoints")) -> Path:
    """The run folder at this path, of this name in `output_dir`, or around this file; else CommandError."""
    places = (Path(name), output_dir / name)
    for place in places:
        folder = place.parent if place.is_file() else place
        if is_run(folder):
            return folder
    for place in filter(Path.is_dir, places):
        why = "it has no config.json of a training script"
        raise CommandError(f"{place} is not a run folder: {why}\n{known_runs(place)}")
    around = next((place.parent for place in places if list_runs(place.parent)), output_dir)
    hint = suggest(Path(name).name, [run.name for run in list_runs(around)])
    raise CommandError(f"there is no run {name}{hint}\n{known_runs(around)}")


def known_runs(output_dir: Path) -> str:
    """One line that lists the runs in `output_dir`, newest first."""
    names = [run.name for run in reversed(list_runs(output_dir))]
    if not names:
        return f"there are no runs in {output_dir}; give the path of one"
    return f"runs in {output_dir}: {some(names, 3)} (all: {output_dir}/*)"


def find_checkpoint(place: str | Path) -> Path:
    """The checkpoint file `place`, or the best one in that run folder; else CommandError lists others."""
    path = Path(place)
    if path.is_dir():
        path /= TASKS[script_of(path)]["checkpoint"]
    if path.is_file():
        return path
    around = path.parent
    found = sorted(map(str, [*around.glob("*.pth"), *around.glob("*/*.pth")]))
    listed = found[:4] or [f"(no checkpoint under {around})"]
    raise CommandError("\n  ".join([f"no checkpoint at {path}; candidates:", *listed]))


def script_of(run: Path) -> str:
    """The script that made this run; CommandError if it is not in the table of tasks."""
    path = run / "config.json"
    return check_script(path, read_json(path, dict).get("script_name"))


def check_script(path: Path, name: object) -> str:
    """`name`, read from `path`; CommandError if it is not in the table of tasks: it will be imported."""
    if name not in TASKS:
        raise CommandError(f"{path} names the script {name!r}; known: {', '.join(TASKS)}")
    return str(name)
