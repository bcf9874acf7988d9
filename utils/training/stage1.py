"""The stage 1 run that stage 2 starts from."""

import argparse
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from utils.run.errors import CommandError
from utils.run.find import find_checkpoint, list_runs
from utils.run.folder import read_json
from utils.training.checkpoint import check_names, load_checkpoint, refuse_unfinished

STAGE1 = "train_stage1.py"


def find_stage1(args: argparse.Namespace) -> Path:
    """The stage 1 checkpoint to start from; CommandError lists candidates or the command to make one."""
    if args.stage1_checkpoint:
        return find_checkpoint(args.stage1_checkpoint)
    if args.data_path:
        raise CommandError(
            "--stage1_checkpoint is required with --data_path\n"
            f"make one: python {STAGE1} --data_path {args.data_path}"
        )
    for run in reversed(list_runs(Path(args.output_dir))):
        results = read_json(run / "results.json", dict) if (run / "results.json").is_file() else {}
        recorded = read_json(run / "config.json", dict).get("args") if results else None
        fold = (recorded or {}).get("fold")
        found = [results.get(key) for key in ("task", "verdict", "synthetic")]
        if found == ["stage1", "LEARNED", True] and fold == args.fold:
            return find_checkpoint(run)
    fold = f" --fold {args.fold}" if args.fold else ""
    raise CommandError(
        f"no LEARNED stage 1 run on the built-in sample{fold} under {args.output_dir}\n"
        f"make one: python {STAGE1}{fold} --output_dir {args.output_dir}"
    )


def adopt_stage1(
    args: argparse.Namespace, flags: Sequence[str], names_of: Callable[..., dict[str, list[str]]]
) -> dict[str, Any]:
    """Load the stage 1 checkpoint and copy these of its flags into `args`. CommandError for a typed flag that
    differs (not --frame_rate: other data), or if its lists of names are not `names_of(args)`."""
    path = find_stage1(args)
    state = load_checkpoint(path, STAGE1)
    refuse_unfinished(path, state)
    for name in flags:
        typed, trained = getattr(args, name), state["args"][name]
        if typed is None:
            setattr(args, name, trained)
        elif typed != trained and name != "frame_rate":
            raise CommandError(f"--{name} {typed}: {path} was trained with {trained}; leave the flag out")
    args.stage1_checkpoint = os.path.abspath(path)
    check_names(path, state, **names_of(args))
    weights = b"".join(tensor.numpy().tobytes() for tensor in state["model"].values())
    # Stage 2 chooses its own threshold.
    return state | {"stage1_threshold": state["threshold"], "sha256": hashlib.sha256(weights).hexdigest()}
