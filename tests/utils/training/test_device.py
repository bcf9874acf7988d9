"""What a CPU process does with freed memory; the GPU paths of utils/training/device.py need a GPU."""

import platform
import resource

import numpy as np
import pytest

from utils.training.device import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of the GNU C library")
def test_freed_memory_is_used_again_without_being_faulted_in():
    keep_freed_memory()
    faults = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(16 * 2**20, np.float32)  # 64 MB, 16,384 pages
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert faults[-1] < 100, faults
