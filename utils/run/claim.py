"""Claim the folder that a run works in: a new one, or that of the run to go on with."""

import argparse
import atexit
import contextlib
import shutil
import tempfile
import time
from pathlib import Path

from utils.run.arguments import MAY_CHANGE_ON_RESUME
from utils.run.errors import CommandError
from utils.run.find import list_runs
from utils.run.folder import create_run_folder, is_finished, plain, read_json, read_record
from utils.run.lock import Lock
from utils.run.log import format_duration
from utils.tasks import TASKS


def claim_folder(args: argparse.Namespace, script: str) -> tuple[Path, Lock]:
    """The run folder to work in and its lock; sets args.resume 'auto' to the run found, or None.
    Raises CommandError for a run that another process is training, except with --force."""
    if args.resume == "auto":
        args.resume = None
        for run in reversed(list_runs(Path(args.output_dir))):
            lock = Lock(run / ".lock")
            if is_unfinished(run, args, script) and lock.take():
                args.resume = str(run)
                break
    elif args.resume:
        run = Path(args.resume)
        lock = Lock(run / ".lock")
        lock.take()
    if args.resume:
        status: dict = {}
        with contextlib.suppress(CommandError):  # missing or damaged: it is written anew
            status = read_json(run / "status.json", dict)
        pid, ago = status.get("pid"), format_duration(max(0.0, time.time() - status.get("time", 0)))
        if not lock.taken and not args.force:
            who = f"pid {pid} on {status.get('host')}, last sign of life {ago} ago"
            raise CommandError(f"--resume {run}: it is being trained by {who}; if it is not, add --force")
        for unfinished in [] if args.force else run.glob(f".*.{pid}.tmp"):
            unfinished.unlink()  # its last process was killed while writing this file
        return run, lock
    parent = args.output_dir
    if args.dry_run:
        new = not Path(parent).exists()
        create_run_folder(parent, "trial").rmdir()  # a full run can make its folder there
        if new:
            Path(parent).rmdir()
    if args.dry_run or args.check_data:
        parent = tempfile.mkdtemp(prefix="trial_")
        atexit.register(shutil.rmtree, parent, ignore_errors=True)
    lock = Lock(create_run_folder(parent, f"{TASKS[script]['folder']}_experiment") / ".lock")
    lock.take()
    return lock.path.parent, lock


def is_unfinished(run: Path, args: argparse.Namespace, script: str) -> bool:
    """Whether this run has the same script and flags, can be resumed, and has not finished."""
    if not (run / "config.json").is_file() or not (run / "last.pth").is_file():
        return False
    config = read_record(run / "config.json", "args", "script_name")
    # One --output_dir can be written in several ways.
    fixed = vars(args).keys() - MAY_CHANGE_ON_RESUME - {"output_dir"} | {"epochs"}
    same = all(config["args"].get(key) == plain(vars(args)[key]) for key in fixed)
    return same and config["script_name"] == script and not is_finished(run, args.epochs, args.patience)
