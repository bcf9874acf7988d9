"""Variants that need a process of their own: each waits in one and runs when it is called.

    with Worker("benchmarks.peers:our_worker", "ours", 96) as worker:
        worker()                       # one round: its seconds

The process calls the named function once, for its set-up; what that returns is run once a round.
"""

import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

HERE = (sys.executable, "-m", "benchmarks.worker")


class Worker:
    """A process that runs once per call; `answers` keeps what it said each time."""

    def __init__(self, *arguments: Any, start: Sequence[Any] = HERE):
        self.command = [str(part) for part in (*start, *arguments)]
        self.answers: list[dict] = []
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the object
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )

    def __call__(self) -> float:
        """Run once. RuntimeError with the end of its stderr when the process has ended instead."""
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        if not (line := self.process.stdout.readline()):
            self.errors.seek(0)
            text = self.errors.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{' '.join(self.command)} ended with {self.process.wait()}:\n{text}")
        self.answers.append(json.loads(line))
        return self.answers[-1]["seconds"]

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_) -> None:
        self.process.stdin.close()
        self.process.wait()


def serve(run: Callable[[], dict]) -> None:
    """In the worker's process: for every line of stdin, print what `run` returns, with its seconds."""
    for _ in sys.stdin:
        started = time.perf_counter()
        answer = run() or {}
        print(json.dumps({"seconds": time.perf_counter() - started} | answer), flush=True)


if __name__ == "__main__":
    module, function = sys.argv[1].split(":")
    serve(getattr(importlib.import_module(module), function)(*sys.argv[2:]))
