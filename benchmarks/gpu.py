"""Checks whether everything works on a GPU, and how fast. Under 8 minutes on one card.

    python -m benchmarks.gpu                      needs only the repository; for docs/scaling.md

Exits with 1 if a check FAILED.
"""

import contextlib
import gc
import importlib
import importlib.util
import io
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from torchvision import models

from benchmarks.measure import machine, markdown
from benchmarks.peers import plain_epoch, plain_loader, rows_of
from benchmarks.scripts import SCRIPTS, Batches, Training, prepare
from utils.run.folder import REPO_ROOT
from utils.training.checkpoint import load_checkpoint

DEVICE, STEPS = "cuda", 20
TINY: dict[str, str] = {}  # more flags of a script; the tests run all this on a CPU with tiny data
TOLERANCE = 5e-3  # relative, of a loss: kernels add in different orders, and errors grow with every step
AGE = "--model resnet18 --image_size 96 --rotation 0 --jitter 0 --dropout 0"
PAIRS = "--no-augment --dropout 0"
PLAIN = {  # no augmentation, no dropout; small enough for 20 steps on a CPU
    "train_stage1": PAIRS,
    "train_stage2": PAIRS,
    "train_anomaly_with_labels": f"{PAIRS} --modality_dropout 0",
    "train_mae": AGE,
    "train_ddp": AGE,
}
SIZES = {  # from the requirements
    "ResNet-50 @224": ("train_mae", "--model resnet50 --image_size 224 --batch_size 32"),
    "frames @512x768, 4,096 points": (
        "train_anomaly_with_labels", "--image_size 512 768 --max_points 4096 --batch_size 8"
    ),
    "pairs, mobilenet_v2": ("train_stage1", "--backbone mobilenet_v2 --batch_size 16"),
}  # fmt: skip
JOINED = """
import torch, torch.distributed as dist
cuda = torch.cuda.is_available()
dist.init_process_group("nccl" if cuda else "gloo")
device = f"cuda:{dist.get_rank()}" if cuda else "cpu"
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1).to(device))
model(torch.ones(2, 4, device=device)).sum().backward()
print(dist.get_backend(), dist.get_world_size(), flush=True)
dist.destroy_process_group()
"""
SMALL_GPU = """
import runpy, sys, torch
torch.cuda.set_per_process_memory_fraction(0.01)
sys.argv = ["train_mae.py", "--model", "resnet50", "--batch_size", "256", "--output_dir", sys.argv[1]]
runpy.run_path("train_mae.py", run_name="__main__")
"""


def say(name: str, fine: bool, text: str) -> bool:
    print(f"- {'ok' if fine else 'FAILED'} {name}: {text}", flush=True)
    return fine


def flags(name: str, text: str, device: str | None = None) -> list[str]:
    return f"{text} {TINY.get(name, '')} --device {device or DEVICE}".split()


def losses(name: str, device: str) -> torch.Tensor:
    """Losses of the first steps, each from another epoch, in float32."""
    training = prepare(name, flags(name, PLAIN[name], device))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return torch.tensor([training.epoch(epoch=k, steps=1)["loss"] for k in range(1, STEPS + 1)])


def same_losses(name: str) -> bool:
    """Do CPU and GPU compute the same losses?"""
    here, there = losses(name, "cpu"), losses(name, DEVICE)
    off = float(((here - there).abs() / here.abs()).max())
    return say(f"{name}, {STEPS} steps", off < TOLERANCE, f"losses differ from the CPU's by {off:.1e}")


def moved() -> bool:
    """Are batches in pinned memory, and convolutions in channels_last?"""
    training = prepare("train_mae", flags("train_mae", AGE))
    pinned = next(iter(training.loader))["images"].is_pinned()
    kernels = [p for p in training.model.parameters() if p.dim() == 4]
    last = all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    fine = last and pinned == (DEVICE == "cuda")
    return say("pinned memory, channels_last", fine, f"{len(kernels)} convolutions")


def train(name: str, *argv: str) -> None:
    """A short run of a script in this process."""
    script = importlib.import_module(name)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):  # of --max_hours
        script.main(script.parse_args(list(argv)))


def resumes(name: str, dtype: torch.dtype = torch.bfloat16) -> bool:
    """Are a run's weights in this precision bit-identical if it is stopped after a step and resumed?"""
    cut = flags(name, "--amp --max_batches 3 --epochs 2")
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch("torch.cuda.is_bf16_supported", return_value=dtype == torch.bfloat16),
    ):
        train(name, *cut, "--output_dir", f"{folder}/whole")
        train(name, *cut, "--output_dir", f"{folder}/parts", "--max_hours", "1e-9")
        train(name, *cut, "--output_dir", f"{folder}/parts", "--resume", "auto")
        runs = sorted(Path(folder).glob("*/*/final.pth"))
        parts, whole = (load_checkpoint(path)["model"] for path in runs)
    same = all(torch.equal(whole[key], parts[key]) for key in whole)
    return say(f"{name} resumed in {dtype}", same, "the same weights" if same else "other weights")


def rate(training: Training, steps: int) -> tuple[float, float]:
    """Samples per second of `steps` steps, and the share of time spent waiting for the loader."""
    training.epoch(steps=steps)  # also the smaller last batch, which --compile compiles again
    loader, started = Batches(training.loader, training.loader), time.perf_counter()
    training.epoch(loader, epoch=2, steps=steps)  # returns when the device is done
    seconds = time.perf_counter() - started
    samples = min(steps * training.args.batch_size, len(training.sampler.order))
    return samples / seconds, loader.waited / seconds


def busy(training: Training) -> float:
    """The share of time in which the GPU computes."""
    kind = torch.profiler.ProfilerActivity.CUDA if DEVICE == "cuda" else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[kind]) as profile:
        started = time.perf_counter()
        training.epoch(epoch=3, steps=STEPS)
        seconds = time.perf_counter() - started
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6 / seconds


def sizes() -> None:
    """How fast, and how much memory, at the sizes in the requirements?"""
    rows = []
    for title, (name, size) in SIZES.items():
        for how in ("", "--amp", "--amp --num_workers 4", "--amp --compile"):
            training = None  # free the memory of the one before
            gc.collect()
            if DEVICE == "cuda":
                torch.cuda.reset_peak_memory_stats()
            training = prepare(name, flags(name, f"{size} {how}"))
            samples, waited = rate(training, STEPS)
            memory = torch.cuda.max_memory_allocated() / 2**20  # 0 on a CPU
            row = [f"{samples:.0f}", f"{memory:.0f}", f"{busy(training):.2f}", f"{waited:.2f}"]
            rows.append([title, how or "fp32", *row])
    header = ["size", "how", "samples/s", "GPU memory MB", "GPU busy", "waits for the loader"]
    print("", *markdown(header, rows), "", sep="\n", flush=True)


def peers() -> None:
    """How fast are torchvision's and timm's loops on the images of train_mae.py, at its size?"""
    training = prepare("train_mae", flags("train_mae", SIZES["ResNet-50 @224"][1]))
    rows, found = rows_of(training), {"train_mae.py": rate(training, len(training.sampler))[0]}
    makers = {"torchvision": models.resnet50}
    if importlib.util.find_spec("timm"):
        makers["timm"] = partial(importlib.import_module("timm").create_model, "resnet50")
    for peer, make in makers.items():
        model = make(num_classes=1).to(training.device)
        loader = plain_loader(rows, training.args.image_size[0], training.args.batch_size, workers=4)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        for _ in range(2):  # the first starts the workers
            started = time.perf_counter()
            plain_epoch(model, loader, optimizer, training.device)
        found[peer] = len(rows) / (time.perf_counter() - started)
    say("samples/s", True, ", ".join(f"{name} {speed:.0f}" for name, speed in found.items()))


def torchrun() -> bool:
    """Does NCCL connect one process per GPU?"""
    count = max(1, torch.cuda.device_count())
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}", "--no-python"]
    command = [sys.executable, *launch, sys.executable, "-c", JOINED]
    done = subprocess.run(command, capture_output=True, text=True)
    wanted = f"{'nccl' if DEVICE == 'cuda' else 'gloo'} {count}"
    found = wanted in done.stdout.splitlines()  # NCCL may print as well
    return say("torchrun", found, wanted if found else (done.stdout + done.stderr)[-300:])


def out_of_memory() -> bool:
    """Does a full GPU give a helpful message?"""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", SMALL_GPU, folder]
        done = subprocess.run(command, cwd=REPO_ROOT, capture_output=True, text=True)
    fine = done.returncode == 1 and "try --batch_size 128" in done.stderr
    return say("out of memory", fine, done.stderr.strip())


def main() -> int:
    started, card = time.perf_counter(), torch.cuda.get_device_name() if DEVICE == "cuda" else "no GPU"
    print(f"{card}, CUDA {torch.version.cuda}, {machine()}\n", flush=True)
    fine = [*map(same_losses, SCRIPTS), moved()]
    fine += map(resumes, ("train_stage1", "train_anomaly_with_labels", "train_mae"))
    if DEVICE == "cuda":
        fine += [resumes("train_mae", torch.float16), out_of_memory()]
    fine.append(torchrun())
    sizes()
    peers()
    print(f"- {time.perf_counter() - started:.0f} s in all, {fine.count(False)} FAILED", flush=True)
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main() if torch.cuda.is_available() else "python -m benchmarks.gpu: no GPU here")
