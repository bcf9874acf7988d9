"""Errors that the user can mend, each with one clear message and an exit code.

Exit codes of every script: 0 finished (LEARNED or not), 1 unexpected error, 2 a flag, path or checkpoint that
cannot be used, 3 input data that cannot be trained on, 4 a loss or gradient that is NaN or infinite (the
weights are those of the step before), 5 not LEARNED with --require_learning, 128 + n ended by signal n (130
Ctrl-C, 143 SIGTERM and --max_hours). A message says what is wrong, where, what was found and what to do.
"""

import difflib
import re
from collections.abc import Iterable, Sequence


class ScriptError(Exception):
    """An error whose message explains it; printed without a traceback."""

    exit_code = 1


class CommandError(ScriptError):
    exit_code = 2


class DataError(ScriptError):
    exit_code = 3


class NonFiniteError(ScriptError):
    exit_code = 4


class NotLearnedError(ScriptError):
    exit_code = 5


def some(names: Iterable[object], shown: int = 10, between: str = ", ") -> str:
    """The first `shown` names and how many more there are: 'a, b, and 3 more'."""
    names = list(map(str, names))
    return between.join(names[:shown] + [f"and {len(names) - shown} more"] * (len(names) > shown))


def counted(n: int, plural: str) -> str:
    """'3 rows without an age', but '1 row without an age': the first word that ends in s loses it."""
    return f"{n} " + (re.sub(r"s\b", "", plural, count=1) if n == 1 else plural)


def suggest(word: str, known: Sequence[str]) -> str:
    """'; did you mean --epochs?', or '' if no known word is close."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
