"""Run every benchmark, each in a process of its own, and rewrite the tables in benchmarks/README.md.

    python -m benchmarks                    all of them; meant for two idle cores
    python -m benchmarks pair_loader peers  some; README.md keeps the others' tables
    python -m benchmarks --quick            do they run? README.md is left alone

Exits with 1 when a benchmark failed, never for a figure.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measure import FOLDER, Report, markdown

# The function of that name in the module is the benchmark, its docstring's first line the title.
BENCHMARKS = {
    "pair_loader": "epochs", "stage1_epoch": "epochs", "epoch_vs_memory": "epochs", "peers": "peers",
    "verdict": "verdict",
}  # fmt: skip
README = Path(__file__).resolve().parent / "README.md"
BEGIN, END = "<!-- tables: written by python -m benchmarks -->", "<!-- end of tables -->"


def run(name: str, quick: bool) -> bool:
    """One benchmark in a process of its own; whether it ended well."""
    started = time.perf_counter()
    print(f"== {name}", flush=True)
    command = [sys.executable, "-m", "benchmarks", "--here", name, *(["--quick"] if quick else [])]
    done = subprocess.run(command, env=os.environ | {"TQDM_DISABLE": "1"})
    print(f"== {name}: {time.perf_counter() - started:.0f} s, exit code {done.returncode}\n", flush=True)
    return done.returncode == 0


def run_here(name: str, quick: bool) -> None:
    """One benchmark in this process."""
    benchmark = getattr(importlib.import_module(f"benchmarks.{BENCHMARKS[name]}"), name)
    report = Report(name, benchmark.__doc__.splitlines()[0].rstrip("."), quick)
    benchmark(report, quick)
    report.finish()


def read_results() -> dict[str, dict]:
    """What the latest full run of each benchmark left, by name."""
    found = {name: FOLDER / f"{name}.json" for name in BENCHMARKS}
    return {name: json.loads(path.read_text()) for name, path in found.items() if path.exists()}


def tables(results: dict[str, dict]) -> str:
    """Machine, the judged figures in one table, then every benchmark's own tables."""
    lines = ["## Demands", ""]
    for machine in dict.fromkeys(one["machine"] for one in results.values()):
        speeds = [one["convolution_gflops"] for one in results.values() if one["machine"] == machine]
        speed = f"one large convolution {min(speeds):.0f} to {max(speeds):.0f} GFLOP/s"
        lines.append(f"Machine: {machine}; {speed}.")
    rows = []
    for row in (row for one in results.values() for row in one["judged"]):
        figures = [f"{row[key]:.3g}{row['unit']}" for key in ("median", "counts")]
        rows.append([row["question"], *figures, row["n"], row["demand"], row["aim"], row["verdict"]])
    demands = markdown(["question", "measured (median)", "worse quartile", "n", "demand", "aim", ""], rows)
    return "\n".join(
        [*lines, "", *demands, "", "## Tables", "", *(one["markdown"] for one in results.values())]
    )


def rewrite(text: str, new: str) -> str:
    """`text` with what stands between the two markers replaced by `new`."""
    before, found_begin, rest = text.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not (found_begin and found_end):
        raise ValueError(f"{README} has lost its markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{new.strip()}\n\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(BENCHMARKS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {names}; default: all")
    parser.add_argument("--quick", action="store_true", help="few rounds, little data; not for quoting")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {names}")
    if args.here:
        run_here(*args.names, args.quick)
        return 0
    started = time.perf_counter()
    failed = [name for name in args.names or BENCHMARKS if not run(name, args.quick)]
    if not args.quick:
        README.write_text(rewrite(README.read_text(), tables(read_results())))
        print(f"{README} rewritten")
    print(f"{time.perf_counter() - started:.0f} s in all; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
