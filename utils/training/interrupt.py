"""Stop a run, or save and go on, between any two training steps.

SIGTERM, SIGINT (Ctrl-C), SIGHUP (the terminal was closed), SIGXCPU, SIGUSR2 and --max_hours let the current
step end, write last.pth and leave with exit code 128 + number (--max_hours: 143); `--resume RUN` goes on at
that very step. A second SIGINT leaves at once. SIGUSR1 writes last.pth and goes on. A signal during
validation, saving or the checks before the first step is obeyed when they are done; before that and in the
final test pass, where nothing can be lost, it ends the process at once.
"""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from utils.run.log import LOG, format_duration, format_values
from utils.run.script import SAVE_SIGNAL, ending_signals, stopped_by
from utils.tasks import TASKS
from utils.training.device import gpu_memory_mb
from utils.training.distributed import gather

SAVE = 1  # or 128 + a signal; the largest wish wins
LOG_SECONDS = 60.0  # between two log lines in a long epoch
BEAT_SECONDS = 5.0  # at least, between two writes of status.json
# Where a rank waits for the others; on a GPU, check_finite is the first to wait for its collectives.
WAITING = ("torch/autograd", "torch/distributed", "torch/nn/parallel", "utils/training/learning")
# The time of a run is estimated from these first steps after a warm-up step, or from fewer if they are slow.
TIMED_STEPS, TIMED_SECONDS = 5, 15.0


def expected_time(seconds: float, steps: int, epochs: int) -> str:
    """'expected time: 12 min for 30 epochs of 24 steps, 0.9 s each'; a tenth is added for the evaluation."""
    total = format_duration(1.1 * seconds * steps * epochs)
    number = f"{epochs} epochs" if epochs > 1 else "one epoch"
    return f"expected time: {total} for {number} of {steps} steps, {seconds:.2g} s each"


def quicker(command: Sequence[str], seconds: float, device: torch.device) -> str:
    """A hint at the task's quick flags if an hour on a CPU lies ahead and none of them was typed, else ''."""
    flags = TASKS.get(script := Path(command[0]).name, {}).get("quick", "")
    typed = {flag for flag in flags.split() if flag.startswith("--")} & set(command)
    if device.type != "cpu" or seconds < 3600 or not flags or typed:
        return ""
    return f"; on a CPU, minutes instead: python {script} {flags}"


def end_when_stalled(interrupt: "Interrupt", seconds: float) -> None:
    """In a thread: end this process if it stays in one step for so many seconds; otherwise the other ranks
    would wait for half an hour, the time limit of the process group. Outside of steps (interrupt.place is
    None) a healthy rank may wait long: for a cache, a larger share of val, a figure, the test pass."""
    seen, still = None, 0
    while still < seconds:
        time.sleep(1)  # seconds are counted, not measured: a suspended process must not look stalled
        place = interrupt.place
        still = still + 1 if place is not None and place == seen else 0
        seen = place
    frames = traceback.extract_stack(sys._current_frames()[threading.main_thread().ident])
    waits = any(part in frame.filename.replace("\\", "/") for frame in frames for part in WAITING)
    if waits:
        time.sleep(3)  # let the stalled rank report first; its end also ends this rank
    (epoch, step), what = seen, "waits for another rank" if waits else "stalls"
    where = f"rank {interrupt.processes.rank} {what} in epoch {epoch} step {step + 1}"
    reason, stack = f"{where}, for {seconds:g} s now", "".join(traceback.format_list(frames))
    print(f"error: {reason} (--stall_timeout):\n{stack}", file=sys.stderr, flush=True)
    threading.Timer(2, os._exit, [1]).start()  # writing status.json may stall too
    interrupt.status.end("failed", reason)
    os._exit(1)  # a stalled main thread reacts to nothing gentler


class Interrupt:
    """Iterates over the steps of each epoch of a utils.training.run.Run; the run can stop after any step.
    `save(step, totals, seconds)` writes last.pth in an unfinished epoch: `step` steps are done, they took
    `seconds` and have added up to `totals` (processes, K)."""

    def __init__(self, run: Any, save: Callable[[int, Tensor, float], None]):
        self.processes, self.status, self.save, args = run.processes, run.status, save, run.args
        self.max_hours = args.max_hours
        self.max_batches, self.log_interval, self.trial = args.max_batches, args.log_interval, args.dry_run
        self.wish, self.first_step, self.totals, self.timed = 0, 0, None, False
        self.look: Callable[[int, int, Any], None] = lambda epoch, step, batch: None  # set by Invariants
        self.samples, self.began, self.seconds_before = 0, 0.0, 0.0  # in this epoch
        # gloo, since agreeing on a wish must not wait for the GPU.
        self.group = dist.new_group(backend="gloo") if dist.is_initialized() else None
        self.place: tuple[int, int] | None = None  # (epoch, step) while in a step
        if self.group is not None and args.stall_timeout:
            watched = self, args.stall_timeout
            threading.Thread(target=end_when_stalled, args=watched, name="stalls", daemon=True).start()
        numbers = filter(None, (signal.SIGINT, SAVE_SIGNAL, *ending_signals()))
        self.handlers = {number: signal.signal(number, self.receive) for number in numbers}
        LOG.info(f"Ctrl-C stops after the current step; to watch: python monitor_training.py {run.folder}")

    def receive(self, number: int, frame: Any) -> None:
        """The signal handler: remember the wish; a second SIGINT leaves at once."""
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        self.wish = max(self.wish, SAVE if number == SAVE_SIGNAL else 128 + number)

    def resume(self, state: dict[str, Any]) -> None:
        """Start the next epoch at the step where the checkpoint `state` was saved."""
        self.first_step, self.totals, world = state["step"], state["totals"], self.processes.world_size
        if self.totals is not None and len(self.totals) != world:  # rank 0 takes the sum
            self.totals = self.totals.sum(0) * (torch.arange(world) == 0)[:, None]
        self.seconds_before = state["seconds"]
        LOG.info(f"resumed after epoch {state['epoch']} and {state['step']} steps of the next")

    def steps(self, loader: DataLoader, epoch: int, totals: Tensor) -> Iterator[tuple[int, Any]]:
        """Yield (step, batch) for an epoch of at most --max_batches steps, or for the rest of a stopped one.
        The loader uses an EpochSampler. totals (K,): the sums of the loop, loss first, samples last."""
        sampler = loader.batch_sampler
        first, self.first_step = self.first_step, 0
        sampler.start(epoch, first)
        if first:
            totals.copy_(self.totals[self.processes.rank])
        steps = min(sampler.steps, self.max_batches or sampler.steps)
        self.samples = min(steps * sampler.batch_size * sampler.world_size, len(sampler.order))
        self.began, self.seconds_before = time.monotonic() - self.seconds_before, 0.0
        self.status.write(state="training", epoch=epoch, step=first, steps=steps)
        logged = warmed_up = time.monotonic()
        self.obey(first, steps, totals)  # a signal that came during validation or saving of the last epoch
        batches = iter(loader)
        not_first = not self.processes.first  # its bar would overwrite that of rank 0
        try:
            for step in tqdm(range(first, steps), f"epoch {epoch}", leave=False, disable=not_first or None):
                self.place = epoch, step
                batch = next(batches)
                self.look(epoch, step, batch)
                yield step, batch
                done = step + 1
                self.status.fields["step"] = done
                if time.monotonic() - self.status.written > BEAT_SECONDS:
                    self.status.write(gpu_memory_mb=gpu_memory_mb(self.processes.device))
                if done == first + 1:
                    warmed_up = time.monotonic()
                elif not self.timed:
                    passed, counted = time.monotonic() - warmed_up, done - first - 1
                    if done == min(first + 1 + TIMED_STEPS, steps) or passed > TIMED_SECONDS:
                        self.timed, seconds = True, passed / counted
                        epochs = self.status.fields["epochs"] - epoch + 1
                        hint = quicker(sys.argv, seconds * steps * epochs, self.processes.device)
                        LOG.info(expected_time(seconds, steps, epochs) + hint)
                late = time.monotonic() - logged > LOG_SECONDS
                if late or (self.log_interval and done % self.log_interval == 0 and done < steps):
                    logged = time.monotonic()
                    mean = {"train_loss": float(totals[0] / totals[-1])}
                    LOG.info(f"epoch {epoch:03d} step {done}/{steps} {format_values(mean)} so far")
                self.obey(done, steps, totals)
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # the loader's frames would keep its workers alive
            raise
        finally:
            self.place = None
            del batches  # ends the loader's workers

    @property
    def seconds(self) -> float:
        """The time that this epoch has taken so far, without that between a stop and --resume."""
        return time.monotonic() - self.began

    def epoch_row(self, lr: float, train: dict[str, Any], val: dict[str, Any]) -> dict[str, Any]:
        """An object of history.json: epoch, learning rate and times, then metrics as train_... and val_..."""
        epoch, seconds = self.status.fields["epoch"], self.seconds
        row = {"epoch": epoch, "lr": lr, "seconds": seconds, "samples_per_second": self.samples / seconds}
        row |= {f"train_{key}": value for key, value in train.items()}
        return row | {f"val_{key}": value for key, value in val.items()}

    def obey(self, done: int, steps: int, totals: Tensor) -> None:
        """Save, and stop if asked to, after the same step in all processes."""
        if not (wish := self.agreed()):
            return
        parts = torch.stack(gather(totals.cpu(), self.group))  # (processes, K)
        if self.processes.first:
            self.save(done, parts, self.seconds)
        LOG.info(f"saved after step {done}/{steps}")
        if self.wish <= wish:  # else asked to stop while saving: after the next step
            self.wish = 0
        if wish > SAVE:
            self.leave(wish)

    def agreed(self) -> int:
        """The largest wish of all processes, the same answer in each."""
        wish = self.wish
        if self.group is not None:
            shared = torch.tensor(wish)
            dist.all_reduce(shared, dist.ReduceOp.MAX, group=self.group)
            wish = int(shared)
        return wish

    def leave(self, wish: int) -> None:
        """End the process; last.pth holds what a resumed run needs."""
        if self.group is not None:
            dist.barrier(group=self.group)  # nobody leaves while the first process is still writing
        reason = stopped_by(wish, self.max_hours)
        LOG.info(reason if self.trial else f"{reason}; go on with --resume {self.status.path.parent}")
        self.status.end("interrupted", reason)
        raise SystemExit(wish)

    def end(self) -> None:
        """Training is over: signals act at once again, and one that has waited acts now."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        if (wish := self.agreed()) > SAVE:
            self.leave(wish)
        self.status.write(state="testing")
