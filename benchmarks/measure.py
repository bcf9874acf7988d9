"""Fair timing of variants, printed as Markdown.

    seconds = measure({"naive": naive, "ours": ours})                    # prints a table
    judge("times faster", seconds["naive"] / seconds["ours"], at_least=20)

A round runs every variant once and each round starts with another variant, so that a machine that slows down
slows all of them. Ratios are taken round by round and judged by their worse quartile.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = Path("data") / "benchmarks"


def run(title: str, benchmark: Callable[[bool], None]) -> None:
    """Run one benchmark from the command line: print title, the output of benchmark(quick), and the time."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--quick", action="store_true", help="few rounds, little data; not for quoting")
    quick, started = parser.parse_args().quick, time.perf_counter()
    print(f"### {title}\n", flush=True)
    benchmark(quick)
    print(f"{time.perf_counter() - started:.0f} s{' (quick: not for quoting)' * quick}.\n", flush=True)


def measure(variants: dict[str, Callable[[], Any]], quick: bool = False) -> dict[str, np.ndarray]:
    """Seconds per call of each variant, (rounds,), after warm-up; prints a table of medians. A variant may
    return the seconds to count as a float, for example to leave out its start."""
    rounds, least = (2, 0.01) if quick else (7, 0.3)
    repeats = {}
    for name, call in variants.items():
        if (seconds := seconds_per_call(call, 1)) < least:  # a short first call was only the warm-up
            seconds = seconds_per_call(call, 1)
        repeats[name] = int(np.ceil(least / max(seconds, 1e-9)))
    found, names = {name: [] for name in variants}, list(variants)
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            found[name].append(seconds_per_call(variants[name], repeats[name]))
    found = {name: np.array(seconds) for name, seconds in found.items()}
    rows = [[name, *(short(1e3 * f(s)) for f in (np.median, np.min, np.max))] for name, s in found.items()]
    print(*markdown(["variant", "median ms", "least", "most"], rows), "", sep="\n")
    print(f"{rounds} rounds.\n", flush=True)
    return found


def seconds_per_call(call: Callable[[], Any], repeats: int) -> float:
    started = time.perf_counter()
    returned = [call() for _ in range(repeats)]
    wall = time.perf_counter() - started
    return (sum(returned) if all(isinstance(seconds, float) for seconds in returned) else wall) / repeats


def judge(
    question: str, ratios: np.ndarray | float, *, at_least: float | None = None, at_most: float | None = None,
    unit: str = "x",
) -> bool:  # fmt: skip
    """Print the median ratio and whether the worse quartile meets the demand; return whether it does."""
    low, median, high = np.percentile(ratios, [25, 50, 75])
    met = low >= at_least if at_least is not None else high <= at_most
    worse, demand = (low, f">= {at_least:g}") if at_least is not None else (high, f"<= {at_most:g}")
    quartile = f" (worse quartile {short(worse)}{unit})" if np.ndim(ratios) else ""
    outcome = "met" if met else "not met"
    print(f"**{question}: {short(median)}{unit}**{quartile}; demand {demand}{unit}: {outcome}.\n", flush=True)
    return bool(met)


def short(number: float) -> str:
    """Three significant digits, or all digits before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


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


def markdown(header: list[str], rows: list[list]) -> list[str]:
    return ["| " + " | ".join(map(str, row)) + " |" for row in (header, ["---"] * len(header), *rows)]
