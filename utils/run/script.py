"""Run a script's main and leave with an exit code, and a clear message if it failed."""

import argparse
import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from utils.run.errors import CommandError, NotLearnedError, ScriptError
from utils.run.log import show
from utils.run.status import Status

SAVE_SIGNAL = getattr(signal, "SIGUSR1", None)  # Windows has none
STARTED = time.monotonic()  # of this process, since this file is imported before torch


def ending_signals() -> list[int]:
    """The signals that end a run, besides Ctrl-C. SIGHUP stays ignored under `nohup`."""
    names = ("SIGHUP", "SIGTERM", "SIGUSR2", "SIGXCPU")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    ignored = signal.getsignal(numbers[0]) == signal.SIG_IGN and hasattr(signal, "SIGHUP")
    return numbers[ignored:]


def run_script(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> None:
    """Call `main(args)` and leave with its exit code; status.json, if there is one, records the reason.
    A ScriptError or a lack of permission or memory is printed to stderr, with --debug as a traceback."""
    options = vars(args)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # any path can be printed in any console encoding
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # see ScriptParser.announce
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in ending_signals():
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    sys.unraisablehook = send_again
    if SAVE_SIGNAL:
        signal.signal(SAVE_SIGNAL, signal.SIG_IGN)  # only training has something to save
    code, ranks = 0, int(os.environ.get("WORLD_SIZE", 1))
    try:
        if hours := options.get("max_hours"):
            send_later(signal.SIGTERM, STARTED + 3600 * hours - time.monotonic())
        verdict = main(args)
        if options.get("require_learning") and verdict is not None and not verdict.learned:
            raise NotLearnedError(f"{verdict.word}: {verdict.reason}")
        if options.get("dry_run"):
            show("dry run: everything a full run needs works; its files are removed")
    except KeyboardInterrupt:
        end_status("interrupted", "stopped by Ctrl-C")
        code = 128 + signal.SIGINT
    except SystemExit as left:
        end_status("interrupted", stopped_by(left.code, options.get("max_hours")))
        code = left.code
    except Exception as error:
        if isinstance(error, PermissionError) and error.filename:
            error = CommandError(f"{error.filename}: {error.strerror}\nchange its permissions or the path")
        end_status("failed", str(error))
        message = str(error) if isinstance(error, ScriptError) else out_of_memory(error, options)
        if not message or options.get("debug"):
            raise
        rank = os.environ.get("RANK", "0")
        with contextlib.suppress(OSError):
            print("error:" if rank == "0" else f"error (rank {rank}):", message, file=sys.stderr, flush=True)
        code = getattr(error, "exit_code", 1)
    finally:  # output that fails (a full disk, a closed terminal) must not change the exit code
        if ranks > 1:
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python will flush it again
    if ranks > 1:
        # A gloo thread that releases its last tensor while Python shuts down aborts the process, and torchrun
        # then kills rank 0 in the middle of its report. So leave without shutting Python down.
        os._exit(code)
    if code:
        sys.exit(code)


def send_later(number: int, seconds: float) -> None:
    """Send this process a signal after so many seconds, if it is still there; it wakes a main thread that
    waits."""
    wake = signal.raise_signal
    if hasattr(signal, "pthread_kill"):  # Windows has none
        wake = partial(signal.pthread_kill, threading.main_thread().ident)
    timer = threading.Timer(min(max(0.0, seconds), threading.TIMEOUT_MAX), wake, [number])
    timer.daemon = True
    timer.start()


def send_again(ignored: Any) -> None:
    """The hook for errors that Python only prints, such as those in __del__ or around a fork: the one with
    which a signal ends the process would be lost there, so the signal comes again."""
    code = getattr(ignored.exc_value, "code", None)
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        send_later(signal.SIGINT, 0.05)
    elif issubclass(ignored.exc_type, SystemExit) and code in {128 + number for number in ending_signals()}:
        send_later(code - 128, 0.05)
    else:
        sys.__unraisablehook__(ignored)


def stopped_by(code: object, max_hours: float | None = None) -> str:
    """'stopped by SIGTERM' for exit code 143."""
    if max_hours and time.monotonic() > STARTED + 3600 * max_hours:
        return "--max_hours is over"
    names = {128 + number: number.name for number in signal.Signals}
    return f"stopped by {names.get(code, 'a signal')}"


def end_status(state: str, reason: str) -> None:
    """Write to status.json, if there is one, how the run ended."""
    if Status.current is None:
        return
    child_ended = getattr(signal, "SIGCHLD", None)
    # When a loader process dies, torch's handler raises in whatever code is running, even in this function.
    handler = child_ended and signal.signal(child_ended, signal.SIG_DFL)
    Status.current.end(state, reason.splitlines()[0] if reason else None)
    if handler:
        signal.signal(child_ended, handler)


def out_of_memory(error: Exception, options: dict[str, Any]) -> str:
    """What ran out and what to try, if the error is of the GPU's or CPU's allocator, else ''.
    Nothing is retried automatically: another batch size would be another run."""
    words = ("CUDA out of memory", "can't allocate memory")
    if not isinstance(error, MemoryError) and not any(word in str(error) for word in words):
        return ""
    lines = [f"out of memory: {(str(error) or type(error).__name__).splitlines()[0]}"]
    if options.get("batch_size", 1) > 1:
        lines.append(f"try --batch_size {options['batch_size'] // 2}, a smaller --image_size, or --amp")
    return "\n".join([*lines, "the last checkpoint is complete: go on with --resume and the same flags"])
