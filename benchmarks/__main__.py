"""Runs every benchmark that compares on this machine, each in its own process.

    python -m benchmarks > benchmarks/tables.md          on two idle cores
    python -m benchmarks --quick                         checks only that they run
    python -m benchmarks.loading                         one of them

Exits with 1 if a benchmark crashed, never because of a figure.
"""

import os
import subprocess
import sys

from benchmarks.measure import machine

NAMES = ("loading", "peers", "verdict")

if __name__ == "__main__":
    print(f"# Benchmarks: the latest figures\n\n{machine()}\n", flush=True)
    commands = [[sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]] for name in NAMES]
    codes = [subprocess.call(command, env=os.environ | {"TQDM_DISABLE": "1"}) for command in commands]
    sys.exit(any(codes))
