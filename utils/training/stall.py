"""A rank that stalls ends the job: the others would wait for it as long as the process group allows, for half
an hour.

Only training steps are watched. Before, between and after them a healthy rank may wait long: for a cache, the
validation of a longer share, a figure or the test pass of rank 0.
"""

import os
import sys
import threading
import time
import traceback

from utils.run.status import Status

WAITING = ("torch/autograd", "torch/distributed", "torch/nn/parallel")  # where a rank waits for the others


class StallWatch(threading.Thread):
    """Ends this process when it stays at one `place` (epoch, step) for `seconds`; None = not in a step."""

    def __init__(self, rank: int, seconds: float, status: Status):
        super().__init__(name="stall watch", daemon=True)
        self.rank, self.seconds, self.status = rank, seconds, status
        self.place: tuple[int, int] | None = None

    def run(self) -> None:
        seen, still = None, 0
        while still < self.seconds:
            time.sleep(1)  # counted, not measured: a process that was suspended does not look stalled
            place = self.place
            still = still + 1 if place is not None and place == seen else 0
            seen = place
        frames = traceback.extract_stack(sys._current_frames()[threading.main_thread().ident])
        waits = any(part in frame.filename.replace("\\", "/") for frame in frames for part in WAITING)
        if waits:
            time.sleep(3)  # the rank that it waits for says what is wrong, and its end ends this one
        epoch, step = seen
        what = "waits for another rank" if waits else "stalls"
        reason = f"rank {self.rank} {what} in epoch {epoch} step {step + 1}, for {self.seconds:g} s now"
        stack = "".join(traceback.format_list(frames))
        print(f"error: {reason} (--stall_timeout):\n{stack}", file=sys.stderr, flush=True)
        threading.Timer(2, os._exit, [1]).start()  # what stalls may be the disk of status.json
        self.status.end("failed", reason)
        os._exit(1)  # nothing gentler reaches a main thread that does not go on
