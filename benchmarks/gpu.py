"""Whether everything works on a GPU (tests/test_gpu.py), and how fast. Under 8 minutes on one card.

    python -m benchmarks.gpu                      needs only the repository; for docs/scaling.md

Exits with 1 if a test failed.
"""

import gc
import importlib
import importlib.util
import subprocess
import sys
import time
from functools import partial

import torch
from torchvision import models

from benchmarks.measure import machine, markdown
from benchmarks.peers import plain_epoch, plain_loader, rows_of
from benchmarks.scripts import Batches, Training, prepare
from utils.run.folder import REPO_ROOT

DEVICE, STEPS = "cuda", 20
SIZES = {  # from the requirements
    "ResNet-50 @224": ("train_mae", "--model resnet50 --image_size 224 --batch_size 32"),
    "frames @512x768, 4,096 points": (
        "train_anomaly_with_labels", "--image_size 512 768 --max_points 4096 --batch_size 8"
    ),
    "pairs, mobilenet_v2": ("train_stage1", "--backbone mobilenet_v2 --batch_size 16"),
}  # fmt: skip
TINY: dict[str, str] = {}  # more flags of a script: the tests run all this on a CPU


def prepared(title: str, how: str = "") -> Training:
    name, size = SIZES[title]
    return prepare(name, f"{size} {how} {TINY.get(name, '')} --device {DEVICE}".split())


def pace(training: Training, steps: int) -> tuple[float, float, float]:
    """Samples per second of `steps` steps, and the shares of time in which the GPU computes and in which the
    script waits for its loader."""
    training.epoch(steps=steps)  # also the smaller last batch, which --compile compiles again
    loader, started = Batches(training.loader, training.loader), time.perf_counter()
    training.epoch(loader, epoch=2, steps=steps)  # returns when the device is done
    seconds = time.perf_counter() - started
    kind = torch.profiler.ProfilerActivity.CUDA if DEVICE == "cuda" else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[kind]) as profile:
        training.epoch(epoch=3, steps=steps)
    busy = sum(event.self_device_time_total for event in profile.key_averages()) / 1e6
    samples = min(steps * training.args.batch_size, len(training.sampler.order))
    return samples / seconds, busy / seconds, loader.waited / seconds


def sizes() -> None:
    """How fast, and how much memory, at the sizes in the requirements?"""
    rows = []
    for title in SIZES:
        for how in ("", "--amp", "--amp --num_workers 4", "--amp --compile"):
            training = None  # free the memory of the one before
            gc.collect()
            if DEVICE == "cuda":
                torch.cuda.reset_peak_memory_stats()
            training = prepared(title, how)
            rate, busy, waited = pace(training, STEPS)
            memory = torch.cuda.max_memory_allocated() / 2**20  # 0 on a CPU
            rows.append(
                [title, how or "fp32", f"{rate:.0f}", f"{memory:.0f}", f"{busy:.2f}", f"{waited:.2f}"]
            )
    header = ["size", "how", "samples/s", "GPU memory MB", "GPU busy", "waits for the loader"]
    print(*markdown(header, rows), "", sep="\n", flush=True)


def peers() -> None:
    """How fast are torchvision's and timm's loops on the images of train_mae.py, at its size?"""
    training = prepared("ResNet-50 @224")
    rows, found = rows_of(training), {"train_mae.py": pace(training, len(training.sampler))[0]}
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
    print(*markdown(["ResNet-50 @224", "samples/s"], [[k, f"{v:.0f}"] for k, v in found.items()]), sep="\n")


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("python -m benchmarks.gpu: no GPU here")
    print(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, {machine()}\n", flush=True)
    tests = ["-m", "pytest", "-v", "-m", "long or not long", "tests/test_gpu.py"]
    code = subprocess.call([sys.executable, *tests], cwd=REPO_ROOT)
    sizes()
    peers()
    sys.exit(code)
