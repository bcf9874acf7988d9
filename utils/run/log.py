"""What `tail -f RUN/train.log` shows: one event, one line, ASCII, flushed at once, the same on stdout."""

import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

LOG_SECONDS = 10  # between two lines of what is redirected and takes long
LOG = logging.getLogger("run")
FAILED: set[str] = set()  # what failed in the present run, and was said to


class OneLineFormatter(logging.Formatter):
    """Control characters and line breaks (a file name may hold them) can not forge a log line."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        return printable(text)


def printable(text: str) -> str:
    """One line of ASCII: what is not printable in it (a file name may hold it) is spelled out or a blank."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text.encode("ascii", "backslashreplace").decode("ascii")


class BesideBars(logging.StreamHandler):
    """Lines on stdout; a progress bar that stands on the terminal is taken away and drawn again below."""

    def emit(self, record: logging.LogRecord) -> None:
        bars = sys.modules.get("tqdm")  # not imported: there is none
        with bars.tqdm.external_write_mode(self.stream) if bars else contextlib.nullcontext():
            super().emit(record)


def progress(items: Any, what: str) -> Iterator[Any]:
    """Go through `items`, which have a length: under a bar on a terminal, else with a line every 10 s."""
    from tqdm import tqdm

    other = os.environ.get("RANK", "0") != "0"  # whose bar would be drawn over the first one's
    bar, said = tqdm(items, desc=what, leave=False, disable=other or None), time.monotonic()
    for done, item in enumerate(bar):
        if bar.disable and time.monotonic() - said > LOG_SECONDS:
            LOG.info(f"{what}: {done} of {len(items)}")
            said = time.monotonic()
        yield item


def start_log(path: Path | None, quiet: bool = False) -> logging.Logger:
    """Log to stdout and, when `path` is given, append to that file. `quiet` (ranks above 0): nowhere."""
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
    """One line each; what can not be written is said once, not with a traceback for every line."""
    place = getattr(handler, "baseFilename", "stdout")
    handler.setFormatter(OneLineFormatter("%(message)s"))
    handler.handleError = lambda record: run_goes_on(place, sys.exc_info()[1])
    LOG.addHandler(handler)


def stop_log() -> None:
    """Close the handlers of the last run, so that the next run in this process starts clean."""
    FAILED.clear()
    for handler in list(LOG.handlers):
        LOG.removeHandler(handler)
        with contextlib.suppress(OSError):  # of what is still to be written
            handler.close()


def run_goes_on(what: str, reason: object) -> None:
    """Warn, once a run, that something beside the weights failed: hours of training outweigh it."""
    if what not in FAILED:
        FAILED.add(what)  # first, since the warning may be the very line that can not be written
        LOG.warning(f"{what} failed, the run goes on: {reason}")


def epoch_line(row: dict[str, Any], epochs: int, keys: Sequence[str], best: bool) -> str:
    """'epoch 002/050 train_loss 0.3039 ... lr 0.001 1.6 s 812 samples/s best': the line people tail for."""
    values = format_values({key: row[key] for key in (*keys, "lr")})
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
    """'1.2 GB', '34 MB' or '8 kB' of so many bytes."""
    for limit, unit, size in ((1e6, "kB", 1e3), (1e9, "MB", 1e6)):
        if count < limit:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e9:.3g} GB"


def align(cells: Sequence[Sequence[str]], between: str = "  ") -> list[str]:
    """Rows of cells as lines of columns, the first to the left, the others to the right."""
    first, *others = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [between.join([row[0].ljust(first), *map(str.rjust, row[1:], others)]).rstrip() for row in cells]


def show(text: str) -> None:
    """Print in ASCII, at once; ends the process quietly when the reader has had enough (`| head`)."""
    try:
        print("\n".join(map(printable, text.split("\n"))), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again at exit
        sys.exit(0)
