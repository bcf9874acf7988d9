"""Where the time of a training step goes: the largest costs of each script at its default settings.

    python -m benchmarks.profiles

A step after a warm-up one under torch.profiler, one thread, on the built-in sample. Self CPU time, forward
and backward of an operator apart; the optimizer and the augmentation show as the operators they call.
"""

from collections import defaultdict
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.anomaly_step import BATCH, HEIGHT, POINTS, WIDTH, make_batch, our_step
from benchmarks.report import Report, parse_quick
from benchmarks.scripts import SCRIPTS, prepare, use_one_thread
from models.anomaly import AnomalyDetectionModel

LARGEST = 3
# The age scripts train ResNet-50 at 224 pixels by default: about ten seconds a step on one thread.
STEPS = {"train_mae": 1, "train_ddp": 1}


def largest_costs(run: Callable[[], object]) -> list[tuple[str, float]]:
    """(operator, share of the self CPU time), largest first, of the second of two calls."""
    run()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run()
    seconds: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        seconds[event.key] += event.self_cpu_time_total
    total = sum(seconds.values())
    return sorted(((key, value / total) for key, value in seconds.items()), key=lambda item: -item[1])


def native_step() -> Callable[[], object]:
    """A step of the anomaly model at the size of real frames, on random ones."""
    batch = make_batch(BATCH, HEIGHT, WIDTH, POINTS)
    model = AnomalyDetectionModel().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    return lambda: our_step(model, optimizer, batch, amp=False)


def main() -> None:
    quick = parse_quick(__doc__)
    use_one_thread()
    report = Report("profiles", "The three largest costs of a training step", quick)
    rows = []
    for name in SCRIPTS[:1] if quick else SCRIPTS:
        training = prepare(name, [])
        costs = largest_costs(lambda t=training, n=name: t.epoch(steps=STEPS.get(n, 8)))
        rows.append([f"{name}, default flags", *map(describe, costs[:LARGEST])])
    if not quick:
        costs = largest_costs(native_step())
        rows.append(["train_anomaly_with_labels, 512x768, 4,096 points", *map(describe, costs[:LARGEST])])
    report.table(["script", "largest", "second", "third"], rows)
    report.finish()


def describe(cost: tuple[str, float]) -> str:
    return f"{cost[0]} {100 * cost[1]:.0f}%"


if __name__ == "__main__":
    main()
