"""Two processes of one thread against one process of two threads, at the same global batch, on two cores.

    python -m benchmarks.two_processes

train_mae.py's own epoch with ResNet-18 at 224 and 96 pixels under torchrun (gloo) and without. BatchNorm
is frozen and dropout 0, so that both must end the timed steps with the same mean loss; this is checked.
What two processes cost on a CPU is the exchange of gradients (45 MB per step), which weighs more the
cheaper the step.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import torch

from benchmarks.report import Report
from benchmarks.scripts import prepare
from benchmarks.timing import measure, times_faster
from utils import distributed

GLOBAL_BATCH = 16
STEPS = 4


def worker(pixels: int, steps: int) -> None:
    """Train a warm-up step and `steps` timed ones; rank 0 prints seconds per step and the mean loss."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    torch.set_num_threads(2 // world)
    training = prepare(
        "train_mae",
        ["--model", "resnet18", "--image_size", str(pixels), "--batch_size", str(GLOBAL_BATCH // world),
         "--freeze_batchnorm", "--dropout", "0"],
    )  # fmt: skip
    training.epoch(steps=1)
    started = time.perf_counter()
    loss = training.epoch(epoch=2, steps=steps)["loss"]
    seconds = (time.perf_counter() - started) / steps
    if int(os.environ.get("RANK", 0)) == 0:
        print(json.dumps({"seconds": seconds, "loss": loss}), flush=True)
    distributed.stop_processes()


def run(processes: int, pixels: int, steps: int) -> dict[str, float]:
    """Start the worker in `processes` processes; what rank 0 printed."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [*start, "-m", "benchmarks.two_processes", "--worker", str(pixels), "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rounds: for development")
    parser.add_argument("--worker", type=int, metavar="PIXELS", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=STEPS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker, args.steps)
    report = Report("two_processes", "Two processes against one, the same global batch", args.quick)
    for pixels in (96,) if args.quick else (224, 96):
        steps = 2 if args.quick else STEPS * (1 if pixels > 100 else 4)
        losses = {count: run(count, pixels, steps)["loss"] for count in (1, 2)}
        if abs(losses[1] - losses[2]) > 1e-4 * losses[1]:
            raise AssertionError(f"one process ends with loss {losses[1]}, two with {losses[2]}")
        timings = measure(
            {
                f"1 process, 2 threads, @{pixels}": lambda p=pixels, s=steps: run(1, p, s)["seconds"],
                f"2 processes, @{pixels}": lambda p=pixels, s=steps: run(2, p, s)["seconds"],
            },
            rounds=1 if args.quick else 5 if pixels > 100 else 3,
            least=0,
        )
        report.timings(timings)
        one, two = timings.values()
        if pixels > 100:
            report.judge("2 processes / 1 process, ResNet-18 @224", times_faster(two, one), at_most=1.10)
        else:
            report.note(f"@96: {times_faster(two, one).median:.2f} times as long; not judged.")
    report.note(f"Seconds per step of {GLOBAL_BATCH} images, start-up not included.")
    report.finish()


if __name__ == "__main__":
    main()
