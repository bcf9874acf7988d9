"""Checks whether everything works on a GPU, and how fast. Under 8 minutes on one card.

    python -m benchmarks.gpu                      needs only the repository; for docs/scaling.md
    python -m benchmarks.gpu --device cpu --tiny  checks only this script; its figures mean nothing

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
from benchmarks.peers import plain_epoch, plain_loader
from benchmarks.scripts import SCRIPTS, Batches, Training, prepare
from utils.run.arguments import ScriptParser
from utils.run.folder import REPO_ROOT
from utils.training.checkpoint import load_checkpoint
from utils.training.device import gpu_memory_mb

STEPS = 20
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
TINY = {  # flags that --tiny adds
    "train_stage1": "--backbone cnn --max_negatives_per_frame 2",
    "train_stage2": "",
    "train_anomaly_with_labels": "--image_size 64 96 --max_points 128",
    "train_mae": "--model cnn --image_size 32",
    "train_ddp": "--model cnn --image_size 32",
}
STEADY = {  # lets a resumed run have more epochs
    "train_stage1": "--scheduler none",
    "train_anomaly_with_labels": "--scheduler none",
    "train_mae": "--scheduler none --warmup_epochs 0",
}
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


class Checks:
    """Measurements on one device; every method answers a question."""

    def __init__(self, device: str, tiny: bool):
        self.device, self.tiny, self.cuda, self.failed = device, tiny, device != "cpu", 0

    def say(self, name: str, fine: bool, text: str) -> None:
        self.failed += not fine
        print(f"- {'ok' if fine else 'FAILED'} {name}: {text}", flush=True)

    def flags(self, name: str, flags: str, device: str | None = None) -> list[str]:
        return f"{flags} {TINY[name] if self.tiny else ''} --device {device or self.device}".split()

    def losses(self, name: str, device: str) -> torch.Tensor:
        """Losses of the first steps, each from another epoch, in float32."""
        training = prepare(name, self.flags(name, PLAIN[name], device))
        steps = 3 if self.tiny else STEPS
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return torch.tensor([training.epoch(epoch=k, steps=1)["loss"] for k in range(1, steps + 1)])

    def same_losses(self, name: str) -> None:
        """Do CPU and GPU compute the same losses?"""
        here, there = self.losses(name, "cpu"), self.losses(name, self.device)
        off = float(((here - there).abs() / here.abs()).max())
        self.say(f"{name}, {len(here)} steps", off < TOLERANCE, f"losses differ from the CPU's by {off:.1e}")

    def moved(self) -> None:
        """Are batches in pinned memory, and convolutions in channels_last?"""
        training = prepare("train_mae", self.flags("train_mae", AGE))
        pinned = next(iter(training.loader))["images"].is_pinned()
        kernels = [p for p in training.model.parameters() if p.dim() == 4]
        last = all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
        self.say("pinned memory, channels_last", last and pinned == self.cuda, f"{len(kernels)} convolutions")

    def train(self, name: str, folder: Path, *flags: str) -> Path:
        """A short run of a script in this process."""
        script = importlib.import_module(name)
        with contextlib.redirect_stdout(io.StringIO()):
            script.main(script.parse_args([*flags, "--output_dir", str(folder)]))
        return max(folder.iterdir())

    def resumes(self, name: str, folder: Path, dtype: torch.dtype) -> None:
        """Are a run's weights in this precision bit-identical if its second epoch comes after --resume?"""
        cut = self.flags(name, f"--amp --max_batches 3 {STEADY[name]}")
        with mock.patch("torch.cuda.is_bf16_supported", return_value=dtype == torch.bfloat16):
            whole = self.train(name, folder / "whole", *cut, "--epochs", "2")
            parts = self.train(name, folder / "parts", *cut, "--epochs", "1")
            self.train(name, folder / "parts", "--resume", str(parts), "--epochs", "2")
        a, b = (load_checkpoint(run / "final.pth")["model"] for run in (whole, parts))
        same = all(torch.equal(a[key], b[key]) for key in a)
        self.say(f"{name} resumed in {dtype}", same, "the same weights" if same else "other weights")

    def rate(self, training: Training, steps: int) -> tuple[float, float]:
        """Samples per second of `steps` steps, and the share of time spent waiting for the loader."""
        training.epoch(steps=steps)  # also the smaller last batch, which --compile compiles again
        loader, started = Batches(training.loader, training.loader), time.perf_counter()
        training.epoch(loader, epoch=2, steps=steps)  # returns when the device is done
        seconds = time.perf_counter() - started
        samples = min(steps * training.args.batch_size, len(training.sampler.order))
        return samples / seconds, loader.waited / seconds

    def busy(self, training: Training, steps: int) -> str:
        """The share of time in which the GPU computes."""
        if not self.cuda:
            return "-"
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            started = time.perf_counter()
            training.epoch(epoch=3, steps=steps)  # returns when the device is done
            seconds = time.perf_counter() - started
        computing = sum(event.self_device_time_total for event in profile.key_averages()) / 1e6
        return f"{computing / seconds:.2f}"

    def sizes(self) -> None:
        """How fast, and how much memory, at the sizes in the requirements?"""
        steps, rows = (2 if self.tiny else 20), []
        for title, (name, flags) in SIZES.items():
            first = not self.tiny or not rows
            for how in ("fp32", *(("--amp", "--amp --num_workers 4", "--amp --compile") if first else ())):
                training = None  # free the memory of the one before
                gc.collect()
                if self.cuda:
                    torch.cuda.reset_peak_memory_stats()
                training = prepare(name, self.flags(name, f"{flags} {how.replace('fp32', '')}"))
                rate, waited = self.rate(training, steps)
                memory = f"{gpu_memory_mb(training.device):.0f}" if self.cuda else "-"
                rows.append([title, how, f"{rate:.0f}", memory, self.busy(training, steps), f"{waited:.2f}"])
        header = ["size", "how", "samples/s", "GPU memory MB", "GPU busy", "waits for the loader"]
        print("", *markdown(header, rows), "", sep="\n", flush=True)

    def peers(self) -> None:
        """How fast are torchvision's and timm's loops on the images of train_mae.py, at its size?"""
        training = prepare("train_mae", self.flags("train_mae", SIZES["ResNet-50 @224"][1]))
        folder, train, batch = training.data.sources[0].images, training.train, training.args.batch_size
        files = list(zip(train.files, train.ages, strict=True))[: 2 * batch if self.tiny else None]
        rows = [[str(folder / name), float(age)] for name, age in files]
        found = {"train_mae.py": self.rate(training, len(training.sampler))[0]}
        makers = {"torchvision": models.resnet50}
        if importlib.util.find_spec("timm"):
            makers["timm"] = partial(importlib.import_module("timm").create_model, "resnet50")
        for peer, make in makers.items():
            model = make(num_classes=1).to(training.device)
            loader = plain_loader(rows, training.args.image_size[0], batch, 0 if self.tiny else 4)
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
            for _ in range(2):  # the first starts the workers
                started = time.perf_counter()
                plain_epoch(model, loader, optimizer, training.device)
            found[peer] = len(rows) / (time.perf_counter() - started)
        self.say("samples/s", True, ", ".join(f"{name} {rate:.0f}" for name, rate in found.items()))

    def torchrun(self) -> None:
        """Does NCCL connect one process per GPU?"""
        count = max(1, torch.cuda.device_count())
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder, "joined.py")
            script.write_text(JOINED)
            done = subprocess.run([sys.executable, *launch, script], capture_output=True, text=True)
        wanted = f"{'nccl' if self.cuda else 'gloo'} {count}"
        found = wanted in done.stdout.splitlines()  # NCCL may print as well
        self.say("torchrun", found, wanted if found else (done.stdout + done.stderr)[-300:])

    def out_of_memory(self, folder: Path) -> None:
        """Does a full GPU give a helpful message?"""
        command = [sys.executable, "-c", SMALL_GPU, str(folder)]
        done = subprocess.run(command, cwd=REPO_ROOT, capture_output=True, text=True)
        fine = done.returncode == 1 and "try --batch_size 128" in done.stderr
        self.say("out of memory", fine, done.stderr.strip())


def main(argv: list[str] | None = None) -> int:
    parser = ScriptParser("python -m benchmarks.gpu", __doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--tiny", action="store_true", help="a few steps at tiny sizes")
    args = parser.parse_args(argv)
    if args.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device {args.device}: no GPU here")
    checks, started = Checks(args.device, args.tiny), time.perf_counter()
    card = torch.cuda.get_device_name() if checks.cuda else "no GPU"
    print(f"{card}, CUDA {torch.version.cuda}, {machine()}\n", flush=True)
    for name in SCRIPTS:
        checks.same_losses(name)
    checks.moved()
    with tempfile.TemporaryDirectory() as folder:
        for name in STEADY:
            checks.resumes(name, Path(folder, name), torch.bfloat16)
        if checks.cuda:
            checks.resumes("train_mae", Path(folder, "float16"), torch.float16)
            checks.out_of_memory(Path(folder, "full"))
    checks.torchrun()
    checks.sizes()
    checks.peers()
    print(f"- {time.perf_counter() - started:.0f} s in all, {checks.failed} FAILED", flush=True)
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
