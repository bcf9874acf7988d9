"""What a user did or a file contains, as one clear message and an exit code.

Exit codes of every script: 0 finished (LEARNED or not), 1 unexpected, 2 bad command, 3 bad data, 4
non-finite. A message says what is wrong, where (file, record, flag), what was found and what to do, in at
most five lines.
"""

import os
import sys
from collections.abc import Callable


class ScriptError(Exception):
    """An error that is explained, not traced."""

    exit_code = 1


class CommandError(ScriptError):
    """A flag, a path or a checkpoint that can not be used."""

    exit_code = 2


class DataError(ScriptError):
    """Input data that can not be trained on."""

    exit_code = 3


class NonFiniteError(ScriptError):
    """A loss or gradient that is NaN or infinite; the weights are still those of the step before."""

    exit_code = 4


def run_script(main: Callable[[], None]) -> None:
    """Call `main`; a ScriptError is printed to stderr (with the rank under torchrun) and becomes its exit
    code."""
    try:
        main()
    except ScriptError as error:
        rank = os.environ.get("RANK", "0")
        print(
            f"error: {error}" if rank == "0" else f"error (rank {rank}): {error}", file=sys.stderr, flush=True
        )
        sys.exit(error.exit_code)
