"""Run every benchmark, each in a process of its own, and write the tables of benchmarks/tables.md.

    python -m benchmarks                    all of them; meant for two idle cores
    python -m benchmarks pair_loader peers  some; the others' tables stay as they last ran on this machine
    python -m benchmarks --quick            do they run? tables.md is left alone

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
    "pair_loader": "epochs", "epoch_vs_memory": "epochs", "peers": "peers", "verdict": "verdict",
}  # fmt: skip
TABLES = Path(__file__).resolve().parent / "tables.md"


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


def tables(folder: Path = FOLDER) -> str:
    """What the latest full run of each benchmark left: machine, the judged figures, then all tables."""
    found = [folder / f"{name}.json" for name in BENCHMARKS]
    results = [json.loads(path.read_text()) for path in found if path.exists()]
    lines = ["# Benchmarks: the latest figures", "", "Written by `python -m benchmarks`.", ""]
    for machine in dict.fromkeys(one["machine"] for one in results):
        speeds = [one["convolution_gflops"] for one in results if one["machine"] == machine]
        lines.append(f"{machine}; one large convolution {min(speeds):.0f} to {max(speeds):.0f} GFLOP/s.")
    rows = []
    for row in (row for one in results for row in one["judged"]):
        figures = [f"{row[key]:.3g}{row['unit']}" for key in ("median", "counts")]
        rows.append([row["question"], *figures, row["n"], row["demand"], row["aim"], row["verdict"]])
    lines += ["", *markdown(["question", "median", "worse quartile", "n", "demand", "aim", ""], rows), ""]
    return "\n".join([*lines, *(one["markdown"] for one in results)])


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
        TABLES.write_text(tables())
        print(f"{TABLES} written")
    print(f"{time.perf_counter() - started:.0f} s in all; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
