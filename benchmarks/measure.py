"""Fair timing of variants, printed as Markdown.

    seconds = measure({"naive": naive, "ours": ours})                    # prints a table
    judge("times faster", seconds["naive"] / seconds["ours"], at_least=20)

A round runs every variant once and each round starts with another variant, so that a machine that slows down
slows all of them. Ratios are taken round by round and judged by their worse quartile.
"""

import argparse
import gc
import os
import platform
import re
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.cache import count_cores


def run(title: str, benchmark: Callable[[bool], None]) -> None:
    """Run one benchmark from the command line: print title, the output of benchmark(quick), and the time."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--quick", action="store_true", help="few rounds, little data; not for quoting")
    quick, started = parser.parse_args().quick, time.perf_counter()
    print(f"### {title}\n", flush=True)
    benchmark(quick)
    print(f"{time.perf_counter() - started:.0f} s{' (quick: not for quoting)' * quick}.\n", flush=True)


def measure(variants: dict[str, Callable[[], Any]], quick: bool = False) -> dict[str, np.ndarray]:
    """Seconds per call of each variant, (rounds,), after warm-up; prints a table of medians."""
    rounds = 2 if quick else 7
    timers = {name: timeit.Timer(call, gc.enable) for name, call in variants.items()}
    repeats = {name: timer.autorange()[0] for name, timer in timers.items()}  # at least .2 s a round
    names, found = list(variants), {name: np.zeros(rounds) for name in variants}
    for k in range(rounds):
        for name in np.roll(names, -k).tolist():
            found[name][k] = timers[name].timeit(repeats[name]) / repeats[name]
    rows = [[name, *(short(1e3 * f(s)) for f in (np.median, np.min, np.max))] for name, s in found.items()]
    print(*markdown(["variant", "median ms", "least", "most"], rows), "", sep="\n")
    print(f"{rounds} rounds.\n", flush=True)
    return found


def judge(
    question: str, ratios: np.ndarray | float, *, at_least: float | None = None, at_most: float | None = None,
    unit: str = "x",
) -> None:  # fmt: skip
    """Print the median ratio and whether the worse quartile meets the demand."""
    low, median, high = np.percentile(ratios, [25, 50, 75])
    met = low >= at_least if at_least is not None else high <= at_most
    worse, demand = (low, f">= {at_least:g}") if at_least is not None else (high, f"<= {at_most:g}")
    quartile = f" (worse quartile {short(worse)}{unit})" if np.ndim(ratios) else ""
    outcome = "met" if met else "not met"
    print(f"**{question}: {short(median)}{unit}**{quartile}; demand {demand}{unit}: {outcome}.\n", flush=True)


def short(number: float) -> str:
    """Three significant digits, or all digits before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def machine() -> str:
    """One line: processor, cores, memory, versions."""
    info = Path("/proc/cpuinfo")
    named = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    model = named[0] if named else platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (f"{model} ({torch.backends.cpu.get_cpu_capability()}), {count_cores()} cores, {memory:.0f} GiB, "
            f"Python {platform.python_version()}, torch {torch.__version__}")  # fmt: skip


def markdown(header: list[str], rows: list[list]) -> list[str]:
    return ["| " + " | ".join(map(str, row)) + " |" for row in (header, ["---"] * len(header), *rows)]
