"""The device of a run and its precision."""

import contextlib
import ctypes
import os
import platform
import re
import warnings

import torch
from torch import nn

from utils.run.errors import CommandError
from utils.run.log import LOG

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt(3)


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device `name`; auto: this process's GPU or, without one, the CPU. CommandError if it is missing."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise CommandError(f"--device {name}: use auto, cpu, cuda or cuda:N")
    if name == "cpu":
        return torch.device(name)
    if not torch.cuda.is_available():
        raise CommandError(f"--device {name}: this machine or torch has no CUDA; use --device cpu")
    index = int(name.partition(":")[2] or local_rank)
    if index >= torch.cuda.device_count():
        raise CommandError(f"--device {name}: GPU {index} asked for, {torch.cuda.device_count()} present")
    device = torch.device("cuda", index)
    repeat_exactly()
    torch.cuda.set_device(device)
    return device


def repeat_exactly() -> None:
    """Let CUDA choose algorithms that give the same bits in every run on the same GPU; call it before CUDA's
    first use. torch warns of operations that have none. Attention takes the plain path, since the gradients
    of the memory-efficient one are summed in any order."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    # True of contiguous maps only: in channels_last its gradient is computed without atomic additions.
    warnings.filterwarnings("ignore", "adaptive_avg_pool2d_backward_cuda")


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors for later ones, until the process ends. Otherwise the system
    maps large activations anew in every step: a quarter of the time for 512x768 images on a CPU."""
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)


def compile_forward(model: nn.Module, device: torch.device) -> None:
    """Compile the model's forward pass with torch.compile, in place: the model keeps its class and the keys
    of its state_dict, the compiled code uses its present weights, and copies of it are not compiled.
    CommandError if a trial fails: a CPU needs a C++ compiler, a GPU Triton and a C compiler."""
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2, device=device))
    except (RuntimeError, OSError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CommandError(f"--compile: nothing can be compiled on this machine ({reason})") from error
    model.compile()


def gpu_memory_mb(device: torch.device) -> float | None:
    """The most memory that this process has held on its GPU so far, in MB (2**20 bytes); None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


def move(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """The batch on the device; a copy from pinned memory overlaps with computation."""
    return {key: value.to(device, non_blocking=True) for key, value in batch.items()}


def amp_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a CPU and on GPUs that support it, else float16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def autocast(device: torch.device, amp: bool) -> contextlib.AbstractContextManager:
    """The precision of the forward pass; does nothing without --amp."""
    return torch.autocast(device.type, dtype=amp_dtype(device), enabled=amp)


def make_scaler(device: torch.device, amp: bool) -> torch.amp.GradScaler:
    """A gradient scaler for float16; for float32 and bfloat16 it is disabled and passes values through."""
    if amp and device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        LOG.warning("--amp: this CPU emulates bfloat16, which is many times slower than float32")
    return torch.amp.GradScaler(device.type, enabled=amp and amp_dtype(device) == torch.float16)
