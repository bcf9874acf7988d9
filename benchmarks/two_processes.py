"""Two processes of one thread against one process of two threads, at the same global batch, on two cores.

    python -m benchmarks.two_processes

train_mae.py's own epoch with ResNet-18 at 224 and 96 pixels under torchrun (gloo) and without. BatchNorm
is frozen and dropout 0, so that both must see the same mean loss; this is checked.
What two processes cost on a CPU is the exchange of gradients (45 MB per step), which weighs more the
cheaper the step.
"""

import argparse
import os
import sys

import torch
import torch.distributed as dist

from benchmarks.report import Report
from benchmarks.scripts import prepare
from benchmarks.timing import measure, times_faster
from benchmarks.worker import Worker, serve
from utils.training import distributed

GLOBAL_BATCH = 16
STEPS = 3


def work(pixels: int) -> None:
    """The worker, one of one or two processes: STEPS training steps per round."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    torch.set_num_threads(2 // world)
    training = prepare(
        "train_mae",
        ["--model", "resnet18", "--image_size", str(pixels), "--batch_size", str(GLOBAL_BATCH // world),
         "--freeze_batchnorm", "--dropout", "0"],
    )  # fmt: skip

    def run() -> dict[str, float]:
        wake_others(True)
        return {"loss": training.epoch(steps=STEPS)["loss"]}

    if int(os.environ.get("RANK", 0)) == 0:
        serve(run)
        wake_others(False)
    else:
        while wake_others():
            training.epoch(steps=STEPS)
    distributed.stop_processes()


def wake_others(go: bool = False) -> bool:
    """Whether there is another round: rank 0 says so, the other waits for it."""
    word = torch.tensor(int(go))
    if dist.is_initialized():
        dist.broadcast(word, src=0)
    return bool(word)


def build_command(processes: int, pixels: int) -> list:
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [*start, "-m", "benchmarks.two_processes", "--worker", pixels]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rounds: for development")
    parser.add_argument("--worker", type=int, metavar="PIXELS", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args.worker)
    report = Report("two_processes", "Two processes against one, the same global batch", args.quick)
    for pixels in (96,) if args.quick else (224, 96):
        with Worker(build_command(1, pixels)) as one, Worker(build_command(2, pixels)) as two:
            variants = {f"1 process, 2 threads, @{pixels}": one, f"2 processes, @{pixels}": two}
            timings = measure(variants, *((2, 0.01) if args.quick else (7, 0.3)))
        first, second = one.answers[0]["loss"], two.answers[0]["loss"]
        if abs(first - second) > 1e-4 * first:
            raise AssertionError(f"one process starts with loss {first}, two with {second}")
        report.timings(timings)
        ratio = times_faster(*reversed(timings.values()))
        if pixels > 100:
            report.judge("2 processes / 1 process, ResNet-18 @224", ratio, at_most=1.10)
        else:
            report.note(f"@96: {ratio.median:.2f} times as long; not judged.")
    report.note(f"Seconds of {STEPS} steps of {GLOBAL_BATCH} images, start-up not included.")
    report.finish()


if __name__ == "__main__":
    main()
