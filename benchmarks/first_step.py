"""How long from starting a script to its first training step, beside importing torch and torchvision?

    python -m benchmarks.first_step

Every process is started anew; caches are warm. A hook on the optimizer ends it after its first step.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.report import Report, parse_quick
from benchmarks.scripts import SMALL
from benchmarks.timing import measure, times_faster

IMPORTS = "import torch, torchvision"
# The hook needs torch before the script does; the time is the same, since the script imports it anyway.
UNTIL_FIRST_STEP = """
import os, runpy, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: os._exit(77))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
FIRST_STEP_DONE = 77
ROOT = Path(__file__).resolve().parent.parent
# The age scripts also time their own step before they train, to say how long the run will take.
SCRIPTS = ("train_stage1", "train_anomaly_with_labels", "train_mae")


def import_only() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)


def run_until_first_step(script: str, folder: str) -> None:
    """Run a script in a process of its own until its optimizer has made a step."""
    flags = ["--output_dir", folder, *SMALL.get(script, [])]
    command = [sys.executable, "-c", UNTIL_FIRST_STEP, str(ROOT / f"{script}.py"), *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != FIRST_STEP_DONE:
        raise RuntimeError(
            f"{script} ended with {done.returncode} before its first step:\n{done.stderr[-2000:]}"
        )


def main() -> None:
    quick = parse_quick(__doc__)
    report = Report("first_step", "From the start of a script to its first step", quick)
    with tempfile.TemporaryDirectory() as folder:
        variants = {IMPORTS: import_only}
        for script in SCRIPTS:
            variants[f"{script}.py"] = lambda s=script: run_until_first_step(s, folder)
        timings = measure(variants, *((2, 0.01) if quick else (7, 0.3)))
    report.timings(timings)
    for script in SCRIPTS:
        ratio = times_faster(timings[f"{script}.py"], timings[IMPORTS])
        report.judge(f"{script}: first step / imports", ratio, at_most=1.3)
    report.note("Samples and caches are there; " + " ".join(SMALL["train_mae"]) + " for train_mae.")
    report.finish()


if __name__ == "__main__":
    main()
