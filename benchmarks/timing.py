"""Times that can be compared: interleaved rounds, medians, and how busy the machine was with other things.

    timings = measure({"naive": naive, "ours": ours})
    times_faster(timings["naive"], timings["ours"]).low        # the figure that counts

A round runs every variant once, each round starting with another one, so that a machine that becomes slower
slows all of them. A ratio is taken round by round, and judged by the quartile that is worse for it.
"""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

BUSY = 0.25  # cores that other processes may use before a round waits for them
PATIENCE = 3  # waits per measurement, at most
QUICK = (2, 0.01)  # rounds and seconds, to see whether a benchmark runs


@dataclass
class Timing:
    """One variant over the rounds: seconds of one call, and cores in use by others just before."""

    wall: list[float] = field(default_factory=list)
    foreign: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Ratio:
    """Median and quartiles of paired ratios over n rounds; `clean`: no other process interfered."""

    median: float
    low: float
    high: float
    n: int
    clean: bool = True


def measure(variants: dict[str, Callable[[], Any]], rounds: int = 7, least: float = 0.3) -> dict[str, Timing]:
    """Time all variants, `rounds` rounds of at least `least` seconds each, after a call that warms up.

    With `least` 0 each variant is called once a round and nothing warms up: for processes of their own. A
    variant may return a float, the seconds that count, when its start does not.
    """
    repeats = {name: repeats_needed(run, least) for name, run in variants.items()}
    timings = {name: Timing() for name in variants}
    names, waits = list(variants), 0
    for k in range(rounds):
        while (foreign := busy_cores()) > BUSY and waits < PATIENCE:
            waits += 1
            time.sleep(2)
        for name in names[k % len(names) :] + names[: k % len(names)]:
            timings[name].wall.append(seconds_per_call(variants[name], repeats[name]))
            timings[name].foreign.append(foreign)
    return timings


def repeats_needed(run: Callable[[], Any], least: float) -> int:
    """How many calls last `least` seconds; the first call warms up and counts only if it is that long."""
    seconds = np.inf
    for _ in range(2 if least else 0):
        if (seconds := seconds_per_call(run, 1)) >= least:
            break
    return max(1, int(np.ceil(least / max(seconds, 1e-9))))


def seconds_per_call(run: Callable[[], Any], repeats: int) -> float:
    started = time.perf_counter()
    returned = [run() for _ in range(repeats)]
    wall = time.perf_counter() - started
    return (sum(returned) if all(isinstance(seconds, float) for seconds in returned) else wall) / repeats


def busy_cores(seconds: float = 0.2) -> float:
    """Cores that other processes use while this one sleeps (Linux; elsewhere 0)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0

    def used() -> int:
        user, nice, system, _, _, irq, soft, steal = map(int, stat.read_text().split()[1:9])
        return user + nice + system + irq + soft + steal

    before = used()
    time.sleep(seconds)
    return (used() - before) / os.sysconf("SC_CLK_TCK") / seconds


def times_faster(slow: Timing, fast: Timing) -> Ratio:
    """Seconds of `slow` over seconds of `fast`, round by round."""
    ratios = np.array(slow.wall) / np.array(fast.wall)
    low, median, high = np.percentile(ratios, [25, 50, 75])
    clean = bool(np.median(np.maximum(slow.foreign, fast.foreign)) <= BUSY)
    return Ratio(float(median), float(low), float(high), len(ratios), clean)


def verdict(ratio: Ratio, *, at_least: float | None = None, at_most: float | None = None) -> str:
    """'met' or 'not met' by the worse quartile; 'inconclusive' where a busy machine could have decided."""
    if at_least is not None:
        worse, better = ratio.low >= at_least, ratio.high >= at_least
    else:
        worse, better = ratio.high <= at_most, ratio.low <= at_most
    if worse:
        return "met"
    return "not met" if ratio.clean or not better else "inconclusive"


def peak_memory_mb() -> float:
    """Peak resident memory of this process so far, in MB (Linux; getrusage would count its parent's)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def growth(sizes: list[int], costs: list[float]) -> float:
    """The exponent k of cost = c * size ** k through the points, least squares on logarithms; 1 is linear."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def machine() -> str:
    """One line: processor, cores, memory, versions."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        named = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = (named or [model])[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (f"{model} ({torch.backends.cpu.get_cpu_capability()}), {cores} cores, {memory:.0f} GiB, "
            f"Python {platform.python_version()}, torch {torch.__version__}")  # fmt: skip


def has_bf16() -> bool:
    """Whether this processor computes in bfloat16; without it, --amp is several times slower than float32."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def convolution_gflops() -> float:
    """GFLOP/s at best: one large float32 convolution, channels last, with the threads in use."""
    images = torch.randn(8, 128, 56, 56).to(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(128, 128, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    with torch.no_grad():
        timing = measure({"convolution": lambda: layer(images)}, rounds=5, least=0.1)["convolution"]
    return 2 * 8 * 56 * 56 * 128 * 128 * 9 / float(np.median(timing.wall)) / 1e9
