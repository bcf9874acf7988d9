"""The stage 1 run that a stage 2 run starts from: found, loaded, its flags taken over."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from utils.run.errors import CommandError
from utils.run.find import find_checkpoint, list_runs
from utils.run.folder import read_json
from utils.training.checkpoint import check_names, load_checkpoint

SCRIPT = "train_stage1.py"


def find_stage1(args: argparse.Namespace) -> Path:
    """The stage 1 checkpoint to start from. CommandError names candidates or the command that makes one."""
    if args.stage1_checkpoint:
        return find_checkpoint(args.stage1_checkpoint)
    if args.data_path:
        raise CommandError(
            "--stage1_checkpoint is required with --data_path\n"
            f"make one: python {SCRIPT} --data_path {args.data_path}"
        )
    for run in reversed(list_runs(Path(args.output_dir))):
        results = read_json(run / "results.json") if (run / "results.json").is_file() else {}
        fold = read_json(run / "config.json").get("args", {}).get("fold") if results else None
        found = [results.get(key) for key in ("task", "verdict", "synthetic")]
        if found == ["stage1", "LEARNED", True] and fold == args.fold:
            return find_checkpoint(run)
    fold = f" --fold {args.fold}" if args.fold else ""
    raise CommandError(
        f"no LEARNED stage 1 run on the built-in sample{fold} under {args.output_dir}\n"
        f"make one: python {SCRIPT} --use_group_sampling{fold}"
    )


def adopt_stage1(
    args: argparse.Namespace, flags: Sequence[str], names_of: Callable[..., dict[str, list[str]]]
) -> dict[str, Any]:
    """Load the stage 1 checkpoint and take these of its flags over into `args`; CommandError for a typed flag
    that differs, and where the checkpoint's lists of names are not `names_of(args)`."""
    path = find_stage1(args)
    state = load_checkpoint(path, SCRIPT)
    for name in flags:
        typed, trained = getattr(args, name), state["args"][name]
        if typed is not None and typed != trained:
            raise CommandError(f"--{name} {typed}: {path} was trained with {trained}; leave the flag out")
        setattr(args, name, trained)
    args.stage1_checkpoint = str(path)
    check_names(path, state, **names_of(args))
    return state | {"stage1_threshold": state["threshold"]}  # stage 2 chooses one of its own
