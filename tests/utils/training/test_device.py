"""What a CPU process does with freed memory; the GPU paths of utils/training/device.py need a GPU."""

import platform
import resource
import warnings

import numpy as np
import pytest
import torch

from utils.run.errors import CommandError
from utils.training.device import choose_device, keep_freed_memory


def test_a_process_gets_its_own_gpu_which_gives_the_same_bits_in_every_run(monkeypatch):
    for name, value in {"is_available": True, "device_count": 2, "set_device": None}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    fills = torch.utils.deterministic.fill_uninitialized_memory
    try:
        with warnings.catch_warnings():
            assert choose_device("auto", 1) == choose_device("cuda:1") == torch.device("cuda", 1)
            assert torch.are_deterministic_algorithms_enabled()
            assert not torch.backends.cuda.mem_efficient_sdp_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = fills
        torch.backends.cuda.enable_mem_efficient_sdp(True)
        torch.backends.cuda.enable_cudnn_sdp(True)
    for name, said in (("cuda:2", "GPU 2 asked for, 2 present"), ("cuda1", "use auto, cpu, cuda or cuda:N")):
        with pytest.raises(CommandError, match=f"--device {name}: {said}"):
            choose_device(name)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of the GNU C library")
def test_freed_memory_is_used_again_without_being_faulted_in():
    keep_freed_memory()
    faults = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(16 * 2**20, np.float32)  # 64 MB, 16,384 pages
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert faults[-1] < 100, faults
