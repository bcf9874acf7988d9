"""Seconds from Enter to the verdict for the README's four commands, as a table for docs/speed.md.

    python -m benchmarks.verdict_time                 seed 42, each command once; on two idle cores
    python -m benchmarks.verdict_time --seeds 3       seeds 42, 43 and 44: also mean and range of the figures
    python -m benchmarks.verdict_time --only anomaly age

For every seed the commands run in turn in a fresh clone of the last commit, so that samples and caches are
built again (stage 2 uses the sample and run of stage 1). imports = until the log names the run folder;
generation, cache = as logged; training = the epochs with their pass over val; evaluation = until final.pth is
written: the passes over val and test, and what each input is worth; report = until the process ends. The rest
is reading data and the checks before training.
"""

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import machine, markdown
from utils.run.arguments import ScriptParser
from utils.run.folder import REPO_ROOT, read_json

COMMANDS = {  # as in README.md
    "stage 1": ["train_stage1.py", "--use_group_sampling"],
    "stage 2": ["train_stage2.py"],
    "anomaly": ["train_anomaly_with_labels.py"],
    "age": ["train_mae.py", "--epochs", "24", "--model", "resnet18", "--image_size", "96"],
}
FIGURES = {"stage 1": "auroc", "stage 2": "macro_f1", "anomaly": "auroc", "age": "subject_mae"}
PARTS = ("imports", "generation", "cache", "training", "evaluation", "report")
FIRST_SEED = 42


def measure_command(name: str, checkout: Path, seed: int) -> dict[str, Any]:
    """Run one command in a checkout: seconds in total and per part, CPU seconds, verdict, figure on test."""
    command = [sys.executable, *COMMANDS[name], "--seed", str(seed)]
    quiet = os.environ | {"PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1"}
    began, before = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(command, cwd=checkout, stdout=subprocess.PIPE, text=True, env=quiet) as process:
        lines = [(time.time() - began, line) for line in process.stdout]
    wall, after = time.time() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {lines[-1:]}")
    run = max((checkout / "checkpoints").glob("*_experiment_*"), key=lambda folder: folder.stat().st_mtime)
    results, judged = read_json(run / "results.json"), (run / "final.pth").stat().st_mtime - began

    def logged(what: str) -> float:
        """The sum of 'sample jrdb: built in 9.1 s in FOLDER' or 'cache crops (9 items): built in ...'."""
        built = re.compile(rf"{what} .*: built in (\S+) s ")
        return sum(float(found[1]) for _, line in lines if (found := built.match(line)))

    return {
        "seconds": wall,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "verdict": results["verdict"],
        "figure": results["metrics"]["test"][FIGURES[name]],
        "imports": next(second for second, line in lines if "run folder" in line),
        "generation": logged("sample"),
        "cache": logged("cache"),
        "training": results["wall_seconds"],
        "evaluation": judged - max(second for second, line in lines if line.startswith("epoch ")),
        "report": wall - judged,
    }


def table(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Mean times over the seeds, the figure with its range, and how many runs ended LEARNED."""
    rows = []
    for name, runs in found.items():
        times = [f"{np.mean([run[key] for run in runs]):.1f}" for key in ("seconds", *PARTS, "cpu")]
        figures = [run["figure"] for run in runs]
        spread = f" ({min(figures):.4g} to {max(figures):.4g})" if len(runs) > 1 else ""
        figure = f"{FIGURES[name]} {np.mean(figures):.4g}{spread}"
        learned = f"{sum(run['verdict'] == 'LEARNED' for run in runs)} of {len(runs)}"
        rows.append([f"`{' '.join(COMMANDS[name])}`", *times, figure, learned])
    return markdown(["command", "seconds", *PARTS, "CPU s", "figure on test", "LEARNED"], rows)


def main(argv: list[str] | None = None) -> None:
    parser = ScriptParser("python -m benchmarks.verdict_time", __doc__)
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of each command")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS), help="these commands")
    args = parser.parse_args(argv)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in COMMANDS if name in args.only}
    for seed in range(FIRST_SEED, FIRST_SEED + args.seeds):
        with tempfile.TemporaryDirectory(prefix="verdict_time_") as folder:
            subprocess.run(["git", "clone", "--quiet", REPO_ROOT, folder], check=True)
            for name, runs in found.items():
                runs.append(measure_command(name, Path(folder), seed))
                print(f"{name}, seed {seed}: {runs[-1]}", file=sys.stderr, flush=True)
    print(f"{machine()}\n", *table(found), sep="\n")


if __name__ == "__main__":
    main()
