"""What a benchmark leaves: Markdown on stdout, raw timings and figures in data/benchmarks/NAME.json."""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.timing import Ratio, Timing, convolution_gflops, machine, verdict

FOLDER = Path("data") / "benchmarks"


def parse_quick(description: str | None) -> bool:
    """The one flag of every benchmark."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rounds on little data: for development")
    return parser.parse_args().quick


class Report:
    """Tables, judged figures and notes of one benchmark, in the order they are added."""

    def __init__(self, name: str, title: str, quick: bool = False):
        self.name, self.quick, self.started = name, quick, time.perf_counter()
        self.lines = [f"### {title}", ""]
        self.judged: list[dict] = []
        self.raw: dict[str, dict] = {}

    def timings(self, timings: dict[str, Timing], unit: str = "s") -> None:
        """A table of seconds (or ms) per call: median, extremes, rounds, CPU time, foreign cores."""
        scale = {"s": 1, "ms": 1e3}[unit]
        rows = []
        for name, timing in timings.items():
            wall = np.array(timing.wall) * scale
            cpu, foreign = np.median(timing.cpu) * scale, np.median(timing.foreign)
            span = f"{wall.min():.3g} .. {wall.max():.3g}"
            rows.append([name, f"{np.median(wall):.3g}", span, len(wall), f"{cpu:.3g}", f"{foreign:.2f}"])
            self.raw[name] = asdict(timing)
        self.table(["variant", f"median {unit}", "min .. max", "n", f"CPU {unit}", "foreign cores"], rows)

    def table(self, header: list[str], rows: list[list]) -> None:
        """Any table."""
        cells = [header, ["---"] * len(header), *rows]
        self.lines += ["| " + " | ".join(map(str, row)) + " |" for row in cells] + [""]

    def note(self, text: str) -> None:
        """A paragraph."""
        self.lines += [text, ""]

    def judge(
        self,
        question: str,
        ratio: Ratio,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        aim: str = "",
        unit: str = "x",
    ) -> None:
        """One figure against its demand."""
        demand = f">= {at_least:g}{unit}" if at_least is not None else f"<= {at_most:g}{unit}"
        counts = ratio.low if at_least is not None else ratio.high
        self.judged.append(
            {
                "question": question,
                "median": ratio.median,
                "counts": counts,
                "n": ratio.n,
                "unit": unit,
                "demand": demand,
                "aim": aim,
                "verdict": verdict(ratio, at_least=at_least, at_most=at_most),
            }
        )
        last = self.judged[-1]
        quartile = f" (worse quartile {counts:.3g}{unit}, n {ratio.n})" if ratio.n > 1 else ""
        text = f"**{question}: {ratio.median:.3g}{unit}**{quartile}; demand {demand}"
        self.note(f"{text}{f', aim {aim}' if aim else ''}: {last['verdict']}.")

    def finish(self) -> None:
        """Print the Markdown and write the JSON."""
        self.note(
            f"{time.perf_counter() - self.started:.0f} s{' (quick: not for quoting)' if self.quick else ''}."
        )
        FOLDER.mkdir(parents=True, exist_ok=True)
        content = {
            "machine": machine(),
            "convolution_gflops": convolution_gflops(),
            "quick": self.quick,
            "judged": self.judged,
            "raw": self.raw,
            "markdown": "\n".join(self.lines),
        }
        (FOLDER / f"{self.name}{'.quick' if self.quick else ''}.json").write_text(
            json.dumps(content, indent=1)
        )
        print(content["markdown"], flush=True)


def exactly(value: float) -> Ratio:
    """A figure that is counted, not timed: no rounds, no spread."""
    return Ratio(value, value, value, 1)
