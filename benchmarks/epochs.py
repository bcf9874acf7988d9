"""What a run costs beside its arithmetic.

    python -m benchmarks epoch_vs_memory bookkeeping first_step two_processes

The loader, checkpoints and figures, the start of a script, the exchange between processes.
"""

import copy
import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks.report import Report
from benchmarks.scripts import SCRIPTS, SMALL, InMemory, Training, prepare
from benchmarks.timing import times_faster
from benchmarks.worker import Worker
from utils.tasks import TASKS
from utils.training import run as training_run

ROOT = Path(__file__).resolve().parent.parent
STEPS = {"train_mae": 2, "train_ddp": 2, "train_anomaly_with_labels": 8}  # about a second each; else 30


def check_equal(training: Training, memory: InMemory, steps: int) -> None:
    """The losses of both variants from the same weights must be equal, bit for bit."""
    start = copy.deepcopy((training.model.state_dict(), training.optimizer.state_dict()))
    losses = []
    for loader in (None, memory):
        training.model.load_state_dict(start[0])
        training.optimizer.load_state_dict(copy.deepcopy(start[1]))
        losses.append(training.epoch(loader, steps=steps)["loss"])
    if losses[0] != losses[1]:
        raise AssertionError(f"loss {losses[0]} from the loader, {losses[1]} from memory")


def epoch_vs_memory(report: Report, quick: bool) -> None:
    """Epoch against the same steps on tensors in memory.

    All five scripts, their own train_one_epoch, caches warm, images of at most 128 pixels. The in-memory
    variant gets the same batches in the same order; augmentation is part of the step in both.
    """
    torch.set_num_threads(1)
    timings = {}
    for name in SCRIPTS:
        training = prepare(name)
        steps = min(len(training.sampler), 1 if quick else STEPS.get(name, 30))
        training.sampler.start(epoch=1)
        batches = [training.train.__getitems__(training.sampler.part(step)[0]) for step in range(steps)]
        memory = InMemory(batches, training.train, training.sampler)
        check_equal(training, memory, steps)
        timings |= report.measure(
            {
                f"{name}, {steps} steps": lambda t=training, s=steps: t.epoch(steps=s),
                f"{name}, in memory": lambda t=training, m=memory, s=steps: t.epoch(m, steps=s),
            }
        )
    report.timings(timings)
    for name, epoch, memory in zip(SCRIPTS, *[iter(timings.values())] * 2, strict=True):
        report.judge(f"{name}: epoch / in memory", times_faster(epoch, memory), at_most=1.1, aim="<= 1.03")
    report.note("1 thread, `--num_workers 0`.")


# The hook needs torch before the script does; the time is the same, since the script imports it anyway.
UNTIL_FIRST_STEP = """
import os, runpy, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: os._exit(77))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
IMPORTS = "import torch, torchvision"


def run_until_first_step(script: str, folder: str) -> None:
    """Run a script in a process of its own until its optimizer has made a step."""
    flags = ["--output_dir", folder, *SMALL.get(script, [])]
    command = [sys.executable, "-c", UNTIL_FIRST_STEP, ROOT / f"{script}.py", *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 77:
        raise RuntimeError(f"{script} ended with {done.returncode} too early:\n{done.stderr[-2000:]}")


def first_step(report: Report, quick: bool) -> None:
    """From the start of a script to its first step.

    Beside importing torch and torchvision. Every process is started anew; samples and caches are there.
    """
    scripts = ("train_stage1", "train_anomaly_with_labels", "train_mae")
    with tempfile.TemporaryDirectory() as folder:
        variants = {IMPORTS: lambda: subprocess.run([sys.executable, "-c", IMPORTS], check=True)}
        variants |= {f"{s}.py": functools.partial(run_until_first_step, s, folder) for s in scripts}
        timings = report.measure(variants)
    report.timings(timings)
    for script in scripts:
        ratio = times_faster(timings[f"{script}.py"], timings[IMPORTS])
        report.judge(f"{script}: first step / imports", ratio, at_most=1.3)
    report.note(f"{' '.join(SMALL['train_mae'])} for train_mae, which also times a step before it trains.")


EPOCH_SECONDS, EPOCHS = 60.0, 3
# Names in the scripts' own namespaces, by what they are for.
PARTS = {
    "checkpoints": ("Checkpoint.save_epoch",),
    "plots": ("plot_curves",),
    "metrics": ("measure", "choose_threshold", "fit_platt", "fit_slope", "choose_alarm_threshold"),
    "log and history": ("epoch_line", "Interrupt.epoch_row"),
    "learning check": ("LearningCheck.after_epoch",),
}


def timed(function: Callable, seconds: dict[str, float], part: str) -> Callable:
    """`function`, which adds the time of each call to seconds[part]."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[part] += time.perf_counter() - started

    return run


def run_timed(name: str, flags: list[str], folder: Path) -> tuple[dict[str, float], int]:
    """Seconds per epoch of each part in a run of the script `name`, and the parameters of its model."""
    script, seconds, replaced = importlib.import_module(name), defaultdict(float), []
    for part, places in PARTS.items():
        for place in places:
            *within, function = place.split(".")
            # The script calls it, or what begins and ends its run.
            owners = {getattr(m, within[0], None) if within else m for m in (script, training_run)}
            for owner in filter(lambda owner, function=function: hasattr(owner, function), owners):
                replaced.append((owner, function, getattr(owner, function)))
                setattr(owner, function, timed(getattr(owner, function), seconds, part))
    try:
        flags = [*flags, "--output_dir", str(folder), "--device", "cpu", "--plot_interval", "1"]
        script.main(script.parse_args([*flags, "--epochs", str(EPOCHS), "--max_batches", "1"]))
    finally:
        for owner, function, original in replaced:
            setattr(owner, function, original)
    run = max(folder.glob(f"{TASKS[script.SCRIPT]['folder']}_experiment_*"))
    parameters = json.loads((run / "config.json").read_text())["model"]["total_parameters"]
    # The final pass draws and measures once more; the default draws every tenth epoch.
    calls = {"plots": 10 * (EPOCHS + 1), "metrics": EPOCHS + 1}
    return {part: seconds[part] / calls.get(part, EPOCHS) for part in PARTS}, parameters


def bookkeeping(report: Report, quick: bool) -> None:
    """Checkpoints, log, plots, metrics and learning check, per epoch.

    Each script trains for a few epochs of one step on its sample with the functions that are not training
    or evaluating timed from outside; validation rows, history and plots are those of the real run.
    """
    torch.set_num_threads(1)
    rows, shares = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name in SCRIPTS[:1] if quick else SCRIPTS:
            flags = SMALL.get(name, [])
            if name == "train_stage2":  # the run of SCRIPTS[0], which is too short to be found by itself
                flags = ["--stage1_checkpoint", str(next(Path(folder).glob("stage1_experiment_*")))]
            seconds, parameters = run_timed(name, flags, Path(folder))
            total = sum(seconds.values())
            shares[name] = 100 * total / EPOCH_SECONDS
            rows.append([name, parameters, *(f"{1e3 * s:.0f}" for s in (*seconds.values(), total))])
    report.table(["script", "parameters", *(f"{part} ms" for part in PARTS), "sum ms"], rows)
    for name, share in shares.items():
        report.judge(f"{name}: bookkeeping of a 60 s epoch", share, at_most=2, unit="%")
    report.note(f"Means over {EPOCHS} epochs, 1 thread; the first epoch writes every best checkpoint.")


def ranks_worker(pixels: str) -> Callable[[], dict[str, float]]:
    """One or two processes: three training steps of 16 images per round. Only rank 0 returns."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    torch.set_num_threads(2 // world)
    flags = ["--model", "resnet18", "--image_size", pixels, "--batch_size", str(16 // world)]
    training = prepare("train_mae", [*flags, "--freeze_batchnorm", "--dropout", "0"])

    def run() -> dict[str, float]:
        if dist.is_initialized():
            dist.barrier()  # the other rank waits here for the next round
        return {"loss": training.epoch(steps=3)["loss"]}

    while os.environ.get("RANK", "0") != "0":
        run()
    return run


def two_processes(report: Report, quick: bool) -> None:
    """Two processes against one, the same global batch.

    train_mae.py's own epoch with ResNet-18 under torchrun (gloo) and without, on two cores. BatchNorm is
    frozen and dropout 0, so that both must see the same mean loss. What two processes cost on a CPU is the
    exchange of gradients (45 MB per step), which weighs more the cheaper the step.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    torchrun += ["-m", "benchmarks.worker"]
    timings = {}
    for pixels in (96,) if quick else (224, 96):
        work = ("benchmarks.epochs:ranks_worker", pixels)
        with Worker(*work) as one, Worker(*work, start=torchrun) as two:
            names = f"1 process, 2 threads, @{pixels}", f"2 processes, @{pixels}"
            timings |= report.measure(dict(zip(names, (one, two), strict=True)))
            two.process.terminate()  # rank 1 waits for a round that does not come
        first, second = one.answers[0]["loss"], two.answers[0]["loss"]
        if abs(first - second) > 1e-4 * first:
            raise AssertionError(f"one process starts with loss {first}, two with {second}")
    report.timings(timings)
    if not quick:
        ratio = times_faster(*reversed(list(timings.values())[:2]))
        report.judge("2 processes / 1 process, ResNet-18 @224", ratio, at_most=1.1)
    report.note("Seconds of 3 steps of 16 images, start-up not included; @96 is not judged.")
