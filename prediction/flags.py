"""The flags of evaluate.py and predict.py that say where other data is and how to read it.

Imports no torch, so that --help and a mistyped flag answer at once.
"""

import argparse
import os
from typing import Any

from datasets.anovox import flags as anovox
from datasets.jrdb import flags as jrdb
from datasets.ultrasound import flags as ultrasound
from utils.run.arguments import DATA_PATHS
from utils.run.errors import CommandError

READING = (*sorted(DATA_PATHS), "camera", "anomaly_ids", "cohort", "id_column", "age_column", "numeric_ids",
           "id_pattern", "min_age", "max_age", "exclude", "exclude_more_than_half", "class_map",
           "skip_bad_boxes", "sheet", "header_row", "visit_column", "file_column", "group_column",
           "missing_values", "intensity_range", "frame_rate")  # fmt: skip
PREDICTING = ("camera", "numeric_ids", "id_pattern", "cache_limit_gb")  # those of predict.py


def add_reading_arguments(parser: argparse.ArgumentParser, names: tuple[str, ...] = READING) -> None:
    """Add the flags `names` of the data sets. Their default is None: the value that the run has."""
    group = parser.add_argument_group("other data, or read differently (default: as in the run)")
    for room in (jrdb, anovox, ultrasound):
        own = argparse.ArgumentParser(add_help=False)
        room.add_data_arguments(own)
        for action in own._actions:
            if action.dest in names and action.option_strings[0] not in parser._option_string_actions:
                action.default, action.help = None, action.help.partition("; default: ")[0]
                group._add_action(action)


def read_otherwise(
    recorded: argparse.Namespace, typed: argparse.Namespace, script: str, names: tuple[str, ...] = READING
) -> bool:
    """Overwrite the run's flags with those typed; return whether that changes any. CommandError for a flag
    of another task."""
    changed = False
    for name in names:
        value = getattr(typed, name, None)
        if value is None:
            continue
        if not hasattr(recorded, name):
            own = [f"--{flag}" for flag in names if hasattr(recorded, flag)]
            raise CommandError(f"--{name}: a run of {script} has only {', '.join(own)}")
        if same_place(name, value) != same_place(name, getattr(recorded, name)):
            changed = True
            if name == "image_dir":
                recorded.excel_path = typed.excel_path  # the run's table lists other people
        setattr(recorded, name, value)
    return changed


def same_place(name: str, value: Any) -> Any:
    """The absolute, resolved form of a path; other values unchanged."""
    return os.path.realpath(value) if name in DATA_PATHS and value is not None else value
