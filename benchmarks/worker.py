"""Variants that cannot share a process: each waits in a process of its own and runs when it is called.

    worker = Worker([sys.executable, "-m", "benchmarks.anomaly_step", "--worker", "naive"])
    worker()                       # one round: its seconds

The process does its set-up once, so that a round costs no start.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable


class Worker:
    """A process that runs once per call; `answers` keeps what it said each time."""

    def __init__(self, command: list):
        self.command = [str(part) for part in command]
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
        answer = run()
        print(json.dumps({"seconds": time.perf_counter() - started} | answer), flush=True)
