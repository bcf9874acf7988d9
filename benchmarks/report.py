"""What a benchmark leaves: Markdown on stdout, raw timings and figures in data/benchmarks/NAME.json."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import QUICK, Ratio, Timing, convolution_gflops, machine, measure, verdict

FOLDER = Path("data") / "benchmarks"


class Report:
    """Tables, judged figures and notes of one benchmark, in the order they are added."""

    def __init__(self, name: str, title: str, quick: bool = False):
        self.name, self.quick, self.started = name, quick, time.perf_counter()
        self.lines = [f"### {title}", ""]
        self.judged: list[dict] = []
        self.raw: dict[str, dict] = {}

    def measure(self, variants: dict[str, Callable[[], Any]], *rounds: float) -> dict[str, Timing]:
        """`timing.measure`, with a few short rounds where the benchmark is only tried."""
        return measure(variants, *(QUICK if self.quick else rounds))

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
        cells = [header, ["---"] * len(header), *rows]
        self.lines += ["| " + " | ".join(map(str, row)) + " |" for row in cells] + [""]

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
