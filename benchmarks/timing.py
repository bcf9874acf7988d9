"""Times that can be compared: interleaved rounds, medians, and how busy the machine was with other things.

    timings = measure({"naive": naive, "ours": ours})
    times_faster(timings["naive"], timings["ours"]).low        # the figure that counts

A round runs every variant once, each round starting with another one, so that a machine that becomes slower
slows all of them. A ratio is taken round by round, and judged by the quartile that is worse for it.
"""

import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

BUSY = 0.25  # cores that other processes may use during a round before it is repeated
RETRIES = 3  # repeated rounds per measurement, at most


@dataclass
class Timing:
    """One variant over the rounds: seconds and CPU seconds of one call; foreign cores in use meanwhile."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
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
    names = list(variants)
    dirty = 0
    while len(timings[names[0]].wall) < rounds:
        start = (len(timings[names[0]].wall) + dirty) % len(names)
        found = {name: one_round(variants[name], repeats[name]) for name in names[start:] + names[:start]}
        if least and max(foreign for _, _, foreign in found.values()) > BUSY and dirty < RETRIES:
            dirty += 1
            continue
        for name, (wall, cpu, foreign) in found.items():
            timings[name].wall.append(wall)
            timings[name].cpu.append(cpu)
            timings[name].foreign.append(foreign)
    return timings


def repeats_needed(run: Callable[[], Any], least: float) -> int:
    """How many calls last `least` seconds.

    The first call warms up and is not counted unless it is that long.
    """
    if not least:
        return 1
    for _ in range(2):
        started = time.perf_counter()
        run()
        seconds = time.perf_counter() - started
        if seconds >= least:
            return 1
    return int(np.ceil(least / max(seconds, 1e-9)))


def one_round(run: Callable[[], Any], repeats: int) -> tuple[float, float, float]:
    """Wall and CPU seconds of one of `repeats` calls, and the cores other processes used meanwhile."""
    busy, cpu, wall = busy_seconds(), own_cpu_seconds(), time.perf_counter()
    returned = [run() for _ in range(repeats)]
    wall, cpu = time.perf_counter() - wall, own_cpu_seconds() - cpu
    foreign = max(0.0, busy_seconds() - busy - cpu) / wall
    if all(isinstance(seconds, float) for seconds in returned):
        wall = sum(returned)
    return wall / repeats, cpu / repeats, foreign


def own_cpu_seconds() -> float:
    """User and system time of this process and of those it started, ended or (Linux) alive."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in parts) + living_children_cpu_seconds("self")


def living_children_cpu_seconds(process: int | str) -> float:
    """User and system time of the living children of a process, and of theirs (Linux; elsewhere 0)."""
    seconds = 0.0
    for listing in Path(f"/proc/{process}/task").glob("*/children"):
        for child in listing.read_text().split():
            times = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:15]
            seconds += sum(map(int, times)) / os.sysconf("SC_CLK_TCK")  # its own, and its ended children's
            seconds += living_children_cpu_seconds(child)
    return seconds


def busy_seconds() -> float:
    """CPU seconds that all processes of the machine have used since it started (Linux; elsewhere 0)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _, _, irq, soft, steal = map(int, stat.read_text().split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def times_faster(slow: Timing, fast: Timing) -> Ratio:
    """Seconds of `slow` over seconds of `fast`, round by round."""
    ratios = np.array(slow.wall) / np.array(fast.wall)
    low, median, high = np.percentile(ratios, [25, 50, 75])
    foreign = np.maximum(slow.foreign, fast.foreign)
    clean = bool(np.median(foreign) <= BUSY) if len(foreign) else True
    return Ratio(float(median), float(low), float(high), len(ratios), clean)


def verdict(ratio: Ratio, *, at_least: float | None = None, at_most: float | None = None) -> str:
    """'met' or 'not met' by the worse quartile, or 'inconclusive'.

    It is inconclusive where others kept the machine busy and that could have decided.
    """
    worse, better = (ratio.low, ratio.high) if at_least is not None else (ratio.high, ratio.low)

    def holds(value: float) -> bool:
        return value >= at_least if at_least is not None else value <= at_most

    if holds(worse):
        return "met"
    return "not met" if ratio.clean or not holds(better) else "inconclusive"


def peak_memory_mb() -> float:
    """Peak resident memory of this process so far, in MB (Linux; getrusage would count its parent's)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def current_memory_mb() -> float:
    """Resident memory of this process now, in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def growth(sizes: list[int], costs: list[float]) -> float:
    """The exponent k of cost = c * size ** k through the points, least squares on logarithms; 1 is linear."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def machine() -> str:
    """One line: processor, cores, memory, versions."""
    import torch

    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        model = next(
            (ln.split(":")[1].strip() for ln in info.read_text().splitlines() if "model name" in ln), model
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    capability = torch.backends.cpu.get_cpu_capability()
    return (
        f"{model} ({capability}), {cores} cores, {memory:.0f} GiB, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )


def has_bf16() -> bool:
    """Whether this processor computes in bfloat16; without it, --amp is several times slower than float32."""
    import torch

    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def convolution_gflops() -> float:
    """GFLOP/s at best: one large float32 convolution, channels last, with the threads in use."""
    import torch

    images = torch.randn(8, 128, 56, 56).to(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(128, 128, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    flops = 2 * 8 * 56 * 56 * 128 * 128 * 9
    with torch.no_grad():
        timing = measure({"convolution": lambda: layer(images)}, rounds=5, least=0.1)["convolution"]
    return flops / float(np.median(timing.wall)) / 1e9
