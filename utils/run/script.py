"""How every script ends: with an exit code, and a clear message if it failed."""

import argparse
import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from utils.run.errors import NotLearnedError, ScriptError
from utils.run.status import Status

SAVE_SIGNAL = getattr(signal, "SIGUSR1", None)  # Windows has none


def ending_signals() -> list[int]:
    """The signals that end a run, beside Ctrl-C: with `nohup`, which ignores SIGHUP, it stays ignored."""
    names = ("SIGHUP", "SIGTERM", "SIGUSR2", "SIGXCPU")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    ignored = signal.getsignal(numbers[0]) == signal.SIG_IGN and hasattr(signal, "SIGHUP")
    return numbers[ignored:]


def run_script(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> None:
    """Call `main(args)` and leave with its exit code, which status.json, where there is one, explains too.
    A ScriptError is printed on stderr, with the rank, without a traceback (but with --debug); others keep it.
    """
    options = vars(args)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a console of any encoding can be told any path
    for number in ending_signals():
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    if SAVE_SIGNAL:
        signal.signal(SAVE_SIGNAL, signal.SIG_IGN)  # there is nothing to save but while training
    code, ranks = 0, int(os.environ.get("WORLD_SIZE", 1))
    try:
        verdict = main(args)
        if options.get("require_learning") and verdict is not None and not verdict.learned:
            raise NotLearnedError(f"{verdict.word}: {verdict.reason}")
        if options.get("dry_run"):
            print("dry run: everything a full run needs works; what it wrote is removed")
    except KeyboardInterrupt:
        end_status("interrupted", "stopped by Ctrl-C")
        code = 128 + signal.SIGINT
    except SystemExit as left:
        end_status("interrupted", stopped_by(left.code))
        code = left.code
    except Exception as error:
        end_status("failed", str(error))
        message = str(error) if isinstance(error, ScriptError) else out_of_memory(error, options)
        if not message or options.get("debug"):
            raise
        rank = os.environ.get("RANK", "0")
        with contextlib.suppress(OSError):
            print("error:" if rank == "0" else f"error (rank {rank}):", message, file=sys.stderr, flush=True)
        code = getattr(error, "exit_code", 1)
    finally:  # what can not be printed (a full disk, a terminal that is gone) must not change the exit code
        if ranks > 1:
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python flushes it once more
    if ranks > 1:
        # A thread of gloo that lets go of its last tensor while Python ends is aborted by it, and torchrun
        # then ends rank 0 in the middle of its report. So Python does not end, the process does.
        os._exit(code)
    if code:
        sys.exit(code)


def stopped_by(code: object) -> str:
    """'stopped by SIGTERM' of exit code 143."""
    names = {128 + number: number.name for number in signal.Signals}
    return f"stopped by {names.get(code, 'a signal')}"


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


def out_of_memory(error: Exception, options: dict[str, Any]) -> str:
    """Where the GPU's or the CPU's allocator gave up: what ran out, and numbers to try; another batch size
    would be another run, so none is taken."""
    words = ("CUDA out of memory", "can't allocate memory")
    if not isinstance(error, MemoryError) and not any(word in str(error) for word in words):
        return ""
    lines = [f"out of memory: {(str(error) or type(error).__name__).splitlines()[0]}"]
    if options.get("batch_size", 1) > 1:
        lines.append(f"try --batch_size {options['batch_size'] // 2}, a smaller --image_size, or --amp")
    return "\n".join([*lines, "the last checkpoint is complete: --resume goes on, with the same flags"])
