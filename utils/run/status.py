"""RUN/status.json: a run's sign of life, for people and for monitor_training.py. Needs no torch."""

import contextlib
import json
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

from utils.run.errors import CommandError
from utils.run.folder import plain, write_bytes, write_json
from utils.run.lock import Lock
from utils.run.log import LOG, run_goes_on


class Status(logging.Handler):
    """What a run is doing and when it last did something; only rank 0 writes it.
    It is also a handler of the log and keeps the warnings, so it is made after the log was started.

    Fields of status.json: state (starting, training, testing, finished, interrupted, failed), time (unix
    seconds of the last sign of life), pid, host, epoch (being trained, from 1), epochs, step (done in it),
    steps (in an epoch), wait and patience (early stopping), gpu_memory_mb, warnings, reason (of the end),
    constant_loss (of the best constant on val; once training begins)."""

    current: "Status | None" = None  # of the run in this process, so that run_script can record a failure

    def __init__(self, run: Path, epochs: int, patience: int, enabled: bool = True, lock: Lock | None = None):
        super().__init__(logging.WARNING)
        self.path, self.enabled, self.written, self.folder_lock = run / "status.json", enabled, 0.0, lock
        files = (self.path, run / "config.json")  # of a resumed run
        self.before = {path: path.read_bytes() for path in files if enabled and path.is_file()}
        self.fields: dict[str, Any] = {
            "state": "starting", "time": 0.0, "pid": os.getpid(), "host": socket.gethostname(), "epoch": 0,
            "epochs": epochs, "step": 0, "steps": None, "wait": 0, "patience": patience,
            "gpu_memory_mb": None, "warnings": [], "reason": None,
        }  # fmt: skip
        LOG.addHandler(self)
        Status.current = self
        self.write()

    def write(self, **changed: Any) -> None:
        """Write now, with these fields changed; if that fails, the run goes on."""
        self.fields |= changed | {"time": time.time()}
        self.written = time.monotonic()
        if self.enabled:
            try:
                write_json(self.path, self.fields)
            except CommandError as error:
                self.overwrite()
                run_goes_on("status.json", error)

    def overwrite(self) -> None:
        """On a full disk, which has no room for a temporary file: reuse the blocks of the present file."""
        text = json.dumps(plain(self.fields)).encode()
        with contextlib.suppress(OSError), open(self.path, "r+b") as file:
            if len(text) <= 512 * getattr(os.fstat(file.fileno()), "st_blocks", 0):  # Windows does not tell
                file.write(text)
                file.truncate()

    def emit(self, record: logging.LogRecord) -> None:
        self.write(warnings=[*self.fields["warnings"], record.getMessage()])

    def end(self, state: str, reason: str | None = None) -> None:
        """Record the state in which the run ended, write nothing afterwards, and release the folder. What
        ends a resumed run before it goes on is no end of the run: status and flags become what they were."""
        if self.before and self.fields["state"] == "starting":
            LOG.info(f"not resumed, the run is as it was: {reason}")
            for path, content in self.before.items():
                with contextlib.suppress(CommandError):
                    write_bytes(path, content)
        else:
            self.write(state=state, reason=reason)
        if self.folder_lock:
            self.folder_lock.release()
        self.enabled, Status.current = False, None
