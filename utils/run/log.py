"""The log, on stdout and for `tail -f RUN/train.log`: each event is one line of ASCII, flushed at once."""

import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

LOG_SECONDS = 10  # between two progress lines where there is no terminal
LOG = logging.getLogger("run")
FAILED: set[str] = set()  # what has failed in this run and was warned of


class OneLineFormatter(logging.Formatter):
    """One line per record: line breaks and control characters (say, in a file name) cannot forge another."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        return printable(text)


def printable(text: str) -> str:
    """One line of ASCII: unprintable characters become blanks, other non-ASCII ones become escapes."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text.encode("ascii", "backslashreplace").decode("ascii")


class BesideBars(logging.StreamHandler):
    """Prints lines to stdout; clears a progress bar on the terminal and redraws it below the line."""

    def emit(self, record: logging.LogRecord) -> None:
        bars = sys.modules.get("tqdm")  # not imported: there is none
        with bars.tqdm.external_write_mode(self.stream) if bars else contextlib.nullcontext():
            super().emit(record)


def progress(items: Any, what: str, total: int | None = None) -> Iterator[Any]:
    """Yield `items`, of a length or `total`, under a bar on a terminal, else with a log line every 10 s."""
    from tqdm import tqdm

    not_first = os.environ.get("RANK", "0") != "0"  # its bar would overwrite that of rank 0
    bar, logged = tqdm(items, what, total, leave=False, disable=not_first or None), time.monotonic()
    for done, item in enumerate(bar):
        if bar.disable and time.monotonic() - logged > LOG_SECONDS:
            LOG.info(f"{what}: {done} of {bar.total}")
            logged = time.monotonic()
        yield item


def start_log(path: Path | None, quiet: bool = False) -> logging.Logger:
    """Log to stdout and append to the file `path`, if given; with `quiet` (ranks above 0) log nowhere."""
    stop_log()
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    add_handler(logging.NullHandler() if quiet else BesideBars(sys.stdout))
    if not quiet and path is not None:
        try:
            add_handler(logging.FileHandler(path, mode="a", encoding="ascii"))
        except OSError as error:
            run_goes_on(str(path), error.strerror)
    return LOG


def add_handler(handler: logging.Handler) -> None:
    """Add a handler; if it cannot write, one warning replaces logging's traceback for every line."""
    place = getattr(handler, "baseFilename", "stdout")
    handler.setFormatter(OneLineFormatter("%(message)s"))
    handler.handleError = lambda record: run_goes_on(place, sys.exc_info()[1])
    LOG.addHandler(handler)


def stop_log() -> None:
    """Close the handlers of the last run, so that the next run in this process starts clean."""
    FAILED.clear()
    for handler in list(LOG.handlers):
        LOG.removeHandler(handler)
        with contextlib.suppress(OSError):  # of lines that could not be written
            handler.close()


def run_goes_on(what: str, reason: object) -> None:
    """Warn, once per run, that `what` failed but the weights are safe: ending the run would cost more."""
    if what not in FAILED:
        FAILED.add(what)  # first, since the warning itself may be the line that cannot be written
        LOG.warning(f"{what} failed, the run goes on: {reason}")


def epoch_line(row: dict[str, Any], epochs: int, keys: Sequence[str], best: bool) -> str:
    """'epoch 002/050 train_loss 0.3039 ... lr 0.001 1.6 s 812 samples/s best'."""
    values = format_values({key: row.get(key) for key in (*keys, "lr")})
    speed = f"{row['seconds']:.1f} s {row['samples_per_second']:.0f} samples/s"
    return f"epoch {row['epoch']:03d}/{epochs:03d} {values} {speed}{' best' if best else ''}"


def format_values(values: dict[str, Any]) -> str:
    """'loss 0.4312 auroc 0.8571': four significant digits, so a loss of 3.3e-05 never prints as 0.0000."""
    return " ".join(f"{key} {format_value(value)}" for key, value in values.items())


def format_value(value: Any) -> str:
    """One value for people: floats with four significant digits, None and NaN as 'undefined'."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "undefined"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def format_duration(seconds: float) -> str:
    """'50 s', '12 min', '3.4 h' or '2.1 days'."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (2 * 86400, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.{1 if unit == 'h' else 0}f} {unit}"
    return f"{seconds / 86400:.1f} days"


def format_size(count: float) -> str:
    """'1.2 GB', '34 MB' or '8 kB' for a number of bytes."""
    size, unit = (1e3, "kB") if count < 1e6 else (1e6, "MB") if count < 1e9 else (1e9, "GB")
    return f"{count / size:.3g} {unit}"


def align(cells: Sequence[Sequence[str]], between: str = "  ") -> list[str]:
    """Rows of cells as aligned lines: the first column to the left, the others to the right."""
    first, *others = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [between.join([row[0].ljust(first), *map(str.rjust, row[1:], others)]).rstrip() for row in cells]


def show(text: str) -> None:
    """Print in ASCII, flushed; end the process quietly if the reader has closed the pipe (`| head`), and go
    on if stdout is a file on a full disk."""
    try:
        print("\n".join(map(printable, text.split("\n"))), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains again at exit
        sys.exit(0)
    except OSError as error:
        with contextlib.suppress(OSError):  # the same file
            print(f"warning: stdout cannot be written: {error.strerror}", file=sys.stderr)
