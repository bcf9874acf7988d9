"""Times that can be compared, and what a benchmark leaves: Markdown on stdout, data/benchmarks/NAME.json.

    timings = measure({"naive": naive, "ours": ours})
    times_faster(timings["naive"], timings["ours"]).low        # the figure that counts

A round runs every variant once, each round starting with another one, so that a machine that becomes slower
slows all of them. A ratio is taken round by round, and judged by the quartile that is worse for it.
"""

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

FOLDER = Path("data") / "benchmarks"
BUSY = 0.25  # cores that other processes may use before a round waits for them
PATIENCE = 3  # waits per measurement, at most
QUICK = (2, 0.01)  # rounds and seconds, to see whether a benchmark runs


@dataclass
class Timing:
    """One variant over the rounds: seconds of one call, and cores in use by others just before."""

    wall: list[float] = field(default_factory=list)
    foreign: list[float] = field(default_factory=list)


class Ratio(NamedTuple):
    """Median and quartiles of paired ratios over n rounds; `clean`: no other process interfered."""

    median: float
    low: float
    high: float
    n: int
    clean: bool = True


def measure(variants: dict[str, Callable[[], Any]], rounds: int = 7, least: float = 0.3) -> dict[str, Timing]:
    """Time all variants, `rounds` rounds of at least `least` seconds each, after a call that warms up.

    A variant may return a float, the seconds that count, when its start does not.
    """
    repeats = {name: repeats_needed(run, least) for name, run in variants.items()}
    timings, names, waits = {name: Timing() for name in variants}, list(variants), 0
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
    if (seconds := seconds_per_call(run, 1)) < least:
        seconds = seconds_per_call(run, 1)
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
    low, median, high = map(float, np.percentile(ratios, [25, 50, 75]))
    clean = bool(np.median(np.maximum(slow.foreign, fast.foreign)) <= BUSY)
    return Ratio(median, low, high, len(ratios), clean)


def verdict(ratio: Ratio, *, at_least: float | None = None, at_most: float | None = None) -> str:
    """'met' or 'not met' by the worse quartile; 'inconclusive' where a busy machine could have decided."""
    if at_least is not None:
        worse, better = ratio.low >= at_least, ratio.high >= at_least
    else:
        worse, better = ratio.high <= at_most, ratio.low <= at_most
    if worse:
        return "met"
    return "not met" if ratio.clean or not better else "inconclusive"


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


def convolution_gflops() -> float:
    """GFLOP/s at best: one large float32 convolution, channels last, with the threads in use."""
    images = torch.randn(8, 128, 56, 56).to(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(128, 128, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    with torch.no_grad():
        timing = measure({"convolution": lambda: layer(images)}, rounds=5, least=0.1)["convolution"]
    return 2 * 8 * 56 * 56 * 128 * 128 * 9 / float(np.median(timing.wall)) / 1e9


def markdown(header: list[str], rows: list[list]) -> list[str]:
    """The lines of a table."""
    cells = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(map(str, row)) + " |" for row in cells]


class Report:
    """Tables, judged figures and notes of one benchmark, in the order they are added."""

    def __init__(self, name: str, title: str, quick: bool = False):
        self.name, self.quick, self.started = name, quick, time.perf_counter()
        self.lines = [f"### {title}", ""]
        self.judged: list[dict] = []
        self.raw: dict[str, dict] = {}

    def measure(self, variants: dict[str, Callable[[], Any]]) -> dict[str, Timing]:
        """`measure` (a few short rounds where the benchmark is only tried)."""
        return measure(variants, *(QUICK if self.quick else ()))

    def timings(self, timings: dict[str, Timing], unit: str = "s") -> None:
        """A table of seconds (or ms) per call: median, extremes, rounds, foreign cores."""
        rows = []
        for name, timing in timings.items():
            wall = np.array(timing.wall) * {"s": 1, "ms": 1e3}[unit]
            span, foreign = f"{wall.min():.3g} .. {wall.max():.3g}", f"{np.median(timing.foreign):.2f}"
            rows.append([name, f"{np.median(wall):.3g}", span, len(wall), foreign])
            self.raw[name] = asdict(timing)
        self.table(["variant", f"median {unit}", "min .. max", "n", "foreign cores"], rows)

    def table(self, header: list[str], rows: list[list]) -> None:
        """Any table."""
        self.lines += [*markdown(header, rows), ""]

    def note(self, text: str) -> None:
        """A paragraph."""
        self.lines += [text, ""]

    def judge(self, question: str, figure: Ratio | float, *, at_least: float | None = None,
              at_most: float | None = None, aim: str = "", unit: str = "x") -> None:  # fmt: skip
        """One figure against its demand; a figure that is counted, not timed, is a plain number."""
        ratio = figure if isinstance(figure, Ratio) else Ratio(figure, figure, figure, 1)
        demand = f">= {at_least:g}{unit}" if at_least is not None else f"<= {at_most:g}{unit}"
        counts = ratio.low if at_least is not None else ratio.high
        said = verdict(ratio, at_least=at_least, at_most=at_most)
        self.judged.append({"question": question, "median": ratio.median, "counts": counts, "n": ratio.n,
                            "unit": unit, "demand": demand, "aim": aim, "verdict": said})  # fmt: skip
        quartile = f" (worse quartile {counts:.3g}{unit}, n {ratio.n})" if ratio.n > 1 else ""
        text = f"**{question}: {ratio.median:.3g}{unit}**{quartile}; demand {demand}"
        self.note(f"{text}{f', aim {aim}' if aim else ''}: {said}.")

    def finish(self) -> None:
        """Print the Markdown and write the JSON."""
        seconds = time.perf_counter() - self.started
        self.note(f"{seconds:.0f} s{' (quick: not for quoting)' if self.quick else ''}.")
        content = {"machine": machine(), "convolution_gflops": convolution_gflops(), "judged": self.judged,
                   "raw": self.raw, "markdown": "\n".join(self.lines)}  # fmt: skip
        FOLDER.mkdir(parents=True, exist_ok=True)
        path = FOLDER / f"{self.name}{'.quick' if self.quick else ''}.json"
        path.write_text(json.dumps(content, indent=1))
        print(content["markdown"], flush=True)
