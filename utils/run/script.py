"""How every script begins its run folder, and ends: with an exit code, and a clear message if it failed."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.run.errors import NotLearnedError, ScriptError
from utils.run.folder import create_run_folder, run_parent
from utils.run.log import LOG, start_log
from utils.run.status import Status

if TYPE_CHECKING:
    from utils.training.distributed import Processes  # imports torch, which --help does without


def open_run(args: argparse.Namespace, title: str, name: str, processes: "Processes") -> tuple[Path, Status]:
    """The run folder, one for all processes, new or that of --resume; its log and status.json are begun."""
    run = Path(args.resume or processes.from_first(lambda: str(create_run_folder(run_parent(args), name))))
    start_log(run / "train.log", quiet=not processes.first)
    status = Status(run, args.epochs, args.patience, enabled=processes.first)
    LOG.info(f"{title} on {processes.device}, {processes.world_size} process(es), run folder {run}")
    return run, status


def run_script(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> None:
    """Call `main(args)` and leave with its exit code; errors are explained on stderr, with the rank.

    A ScriptError is printed without a traceback (--debug shows it). What nobody foresaw keeps its traceback
    and exit code 1. A run that had a status.json says there how it ended.
    """
    options = vars(args)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a console of any encoding can be told any path
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # there is nothing to save but while training
    try:
        verdict = main(args)
        if options.get("require_learning") and verdict is not None and not verdict.learned:
            raise NotLearnedError(f"{verdict.word}: {verdict.reason}")
        if options.get("dry_run"):
            print(f"dry run: everything a full run needs works; it wrote to {run_parent(args)}")
    except KeyboardInterrupt:
        end_status("interrupted", "stopped by Ctrl-C")
        sys.exit(128 + signal.SIGINT)
    except SystemExit:
        end_status("interrupted", "stopped by a signal")
        raise
    except Exception as error:
        end_status("failed", str(error))
        if not isinstance(error, ScriptError) and not out_of_memory(error):
            raise
        if options.get("debug"):
            raise
        rank = os.environ.get("RANK", "0")
        message = out_of_memory_message(error, options) if out_of_memory(error) else str(error)
        print(
            f"error: {message}" if rank == "0" else f"error (rank {rank}): {message}",
            file=sys.stderr,
            flush=True,
        )
        sys.exit(getattr(error, "exit_code", 1))


def end_status(state: str, reason: str) -> None:
    """Write into status.json, where there is one, how the run ended."""
    if Status.current is None:
        return
    child_ended = getattr(signal, "SIGCHLD", None)
    # torch's handler raises wherever the process is when a loader process dies, in the middle of this too.
    handler = child_ended and signal.signal(child_ended, signal.SIG_DFL)
    Status.current.end(state, reason.splitlines()[0] if reason else None)
    if handler:
        signal.signal(child_ended, handler)


def out_of_memory(error: Exception) -> bool:
    """Whether the GPU's or the CPU's allocator gave up."""
    words = ("CUDA out of memory", "can't allocate memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def out_of_memory_message(error: Exception, options: dict[str, Any]) -> str:
    """What ran out, and numbers to try; a run never changes its batch size by itself, it would be another
    run."""
    lines = [f"out of memory: {str(error).splitlines()[0] if str(error) else type(error).__name__}"]
    if options.get("batch_size", 1) > 1:
        lines.append(f"try --batch_size {options['batch_size'] // 2}, a smaller --image_size, or --amp")
    lines.append("the last checkpoint is complete: --resume goes on from it, with the same flags")
    return "\n".join(lines)
