"""Whether everything works on a GPU; `python -m benchmarks.gpu` asks this first. Without one the same runs on
the CPU, which shows only that this file is in order."""

import contextlib
import signal
import subprocess
import sys
from unittest import mock

import pytest
import torch

from benchmarks.scripts import SCRIPTS, prepare
from tests.faults.stopped_runs import signal_at
from tests.tiny_runs import flags_on_pixels, run_main, weights
from utils.run.folder import REPO_ROOT
from utils.training import device, invariants

CUDA = torch.cuda.is_available()
DEVICE, STEPS = ("cuda", 20) if CUDA else ("cpu", 3)
needs_gpu = pytest.mark.skipif(not CUDA, reason="no GPU here")
TOLERANCE = 5e-3  # relative, of a loss: kernels add in different orders, and errors grow with every step
PLAIN = {"train_anomaly_with_labels": "--no-augment --dropout 0 --modality_dropout 0"}
PLAIN |= dict.fromkeys(("train_stage1", "train_stage2"), "--no-augment --dropout 0")
PLAIN |= dict.fromkeys(("train_mae", "train_ddp"), "--model resnet18 --rotation 0 --jitter 0 --dropout 0")


def losses(name: str, place: str) -> torch.Tensor:
    """Losses of the first steps, each from another epoch, in float32, without augmentation and dropout."""
    training = prepare(name, [*flags_on_pixels(name), *PLAIN[name].split(), "--device", place])
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return torch.tensor([training.epoch(epoch=k, steps=1)["loss"] for k in range(1, STEPS + 1)])


@pytest.mark.long
@pytest.mark.parametrize("name", SCRIPTS)
def test_cpu_and_gpu_compute_the_same_losses(name):
    here, there = (losses(name, place) for place in ("cpu", DEVICE))
    torch.testing.assert_close(there, here, rtol=TOLERANCE, atol=0)


@pytest.mark.long
def test_batches_are_in_pinned_memory_and_convolutions_in_channels_last():
    training = prepare(
        "train_mae", [*flags_on_pixels("train_mae"), "--model", "resnet18", "--device", DEVICE]
    )
    assert next(iter(training.loader))["images"].is_pinned() == CUDA
    kernels = [kernel for kernel in training.model.parameters() if kernel.dim() == 4]
    assert kernels and all(k.is_contiguous(memory_format=torch.channels_last) for k in kernels)


def precision(dtype: torch.dtype):
    """A GPU that has, or has not, bf16."""
    return mock.patch("torch.cuda.is_bf16_supported", return_value=dtype == torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_run_in_either_precision_is_in_it_everywhere(dtype):
    with precision(dtype):
        assert {module.amp_dtype(torch.device("cuda")) for module in (device, invariants)} == {dtype}


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=needs_gpu)])
@pytest.mark.parametrize("name", ["train_stage1", "train_anomaly_with_labels", "train_mae"])
def test_a_run_stopped_after_a_step_and_resumed_has_the_same_weights(name, dtype, tmp_path, monkeypatch):
    argv = [*flags_on_pixels(name), "--amp", "--max_batches", 3, "--epochs", 2, "--device", DEVICE]
    with precision(dtype):
        run_main(name, *argv, "--output_dir", tmp_path / "whole")
        with monkeypatch.context() as patch, contextlib.suppress(SystemExit):
            signal_at(patch, (1, signal.SIGTERM))
            run_main(name, *argv, "--output_dir", tmp_path / "parts")
        run_main(name, *argv, "--output_dir", tmp_path / "parts", "--resume", "auto")
    parts, whole = (weights(next((tmp_path / which).iterdir())) for which in ("parts", "whole"))
    assert all(torch.equal(parts[key], whole[key]) for key in whole)


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


@pytest.mark.long
def test_nccl_connects_one_process_per_gpu():
    count = max(1, torch.cuda.device_count())
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}", "--no-python"]
    command = [sys.executable, *launch, sys.executable, "-c", JOINED]
    done = subprocess.run(command, capture_output=True, text=True)
    wanted = f"{'nccl' if CUDA else 'gloo'} {count}"
    assert wanted in done.stdout.splitlines(), done.stdout + done.stderr  # NCCL may print as well


SMALL_GPU = """
import runpy, sys, torch
torch.cuda.set_per_process_memory_fraction(0.01)
sys.argv = ["train_mae.py", "--model", "resnet50", "--batch_size", "256", *sys.argv[1:]]
runpy.run_path("train_mae.py", run_name="__main__")
"""


@pytest.mark.long
@needs_gpu
def test_a_full_gpu_gives_a_helpful_message(tmp_path):
    command = [sys.executable, "-c", SMALL_GPU, "--output_dir", tmp_path]
    done = subprocess.run(command, cwd=REPO_ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "try --batch_size 128" in done.stderr, done.stderr
