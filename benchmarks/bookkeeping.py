"""What checkpoints, log, plots, metrics and the learning check take of an epoch of 60 seconds.

    python -m benchmarks.bookkeeping

Each script trains for a few epochs of one step on its sample with the functions that are not training or
evaluating timed from outside; validation rows, history and plots are those of the real run. A plot is
charged with 1 / plot_interval of its time, as the default draws one every ten epochs.
"""

import functools
import importlib
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.report import Report, exactly, parse_quick
from benchmarks.scripts import SCRIPTS, SMALL

EPOCH_SECONDS = 60.0
EPOCHS = 3
# Names in the scripts' own namespaces, by what they are for.
PARTS = {
    "checkpoints": ("save_epoch",),
    "plots": ("plot_curves",),
    "metrics": ("measure", "choose_threshold", "fit_temperature", "choose_alarm_threshold"),
    "log and history": ("epoch_line", "epoch_row"),
}


def timed(function: Callable, seconds: dict[str, float], part: str) -> Callable:
    """`function`, which adds the time of each call to seconds[part]; calls within calls count once."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[part] += time.perf_counter() - started

    return run


def run_timed(name: str, argv: list[str], folder: Path) -> tuple[dict[str, float], int]:
    """Seconds per epoch of each part in a run of the script `name`, and the parameters of its model."""
    script = importlib.import_module(name)
    seconds: dict[str, float] = defaultdict(float)
    originals = {}
    for part, functions in PARTS.items():
        for function in functions:
            if hasattr(script, function):
                originals[function] = getattr(script, function)
                setattr(script, function, timed(originals[function], seconds, part))
    check, script.LearningCheck = script.LearningCheck, type("Timed", (script.LearningCheck,), {})
    script.LearningCheck.after_epoch = timed(check.after_epoch, seconds, "learning check")
    try:
        args = script.parse_args(
            [*argv, "--output_dir", str(folder), "--device", "cpu", "--plot_interval", "1"]
        )
        args.epochs, args.max_batches = EPOCHS, 1
        script.main(args)
    finally:
        script.LearningCheck = check
        for function, original in originals.items():
            setattr(script, function, original)
    run = max(folder.glob(f"{script.NAME}_experiment_*"))
    parameters = json.loads((run / "config.json").read_text())["model"]["total_parameters"]
    # The final pass draws and measures once more: one epoch more than the loop.
    calls = {"plots": 10 * (EPOCHS + 1), "metrics": EPOCHS + 1}
    return {part: value / calls.get(part, EPOCHS) for part, value in seconds.items()}, parameters


def main() -> None:
    quick = parse_quick(__doc__)
    torch.set_num_threads(1)
    report = Report("bookkeeping", "Checkpoints, log, plots, metrics and learning check, per epoch", quick)
    shares, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for name in SCRIPTS[:1] if quick else SCRIPTS:
            argv = SMALL.get(name, [])
            if name == "train_stage2":  # the run of SCRIPTS[0], which is too short to be found by itself
                argv = ["--stage1_checkpoint", str(next(Path(folder).glob("stage1_experiment_*")))]
            seconds, parameters = run_timed(name, argv, Path(folder))
            parts = [f"{1e3 * seconds.get(part, 0):.0f}" for part in (*PARTS, "learning check")]
            total = sum(seconds.values())
            shares[name] = total / EPOCH_SECONDS
            rows.append([name, parameters, *parts, f"{1e3 * total:.0f}", f"{100 * shares[name]:.2f}%"])
    header = [
        "script",
        "parameters",
        *(f"{part} ms" for part in (*PARTS, "learning check")),
        "sum ms",
        "of 60 s",
    ]
    report.table(header, rows)
    for name, share in shares.items():
        report.judge(f"{name}: bookkeeping of a 60 s epoch", exactly(100 * share), at_most=2, unit="%")
    report.note(f"Means over {EPOCHS} epochs, 1 thread; the first epoch writes every best checkpoint.")
    report.finish()


if __name__ == "__main__":
    main()
