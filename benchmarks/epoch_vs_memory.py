"""How long is an epoch, compared with the same steps on batches that are tensors in memory already?

    python -m benchmarks.epoch_vs_memory

All five scripts, their own train_one_epoch, caches warm, images of at most 128 pixels. The in-memory
variant gets the same batches in the same order; augmentation, which works on the batch, is part of the
step in both. Before the timing the two must give the same loss, bit for bit, from the same weights.
"""

import copy

import torch

from benchmarks.report import Report, parse_quick
from benchmarks.scripts import SCRIPTS, InMemory, Training, prepare, use_one_thread
from benchmarks.timing import measure, times_faster

STEPS = {"train_mae": 2, "train_ddp": 2, "train_anomaly_with_labels": 8}  # about a second each
DEFAULT_STEPS = 30


def check_equal(training: Training, memory: InMemory, steps: int) -> None:
    """The losses of both variants from the same weights must be equal."""
    start = copy.deepcopy(training.model.state_dict())
    optimizer = copy.deepcopy(training.optimizer.state_dict())
    losses = []
    for loader in (None, memory):
        training.model.load_state_dict(start)
        training.optimizer.load_state_dict(copy.deepcopy(optimizer))
        losses.append(training.epoch(loader, steps=steps)["loss"])
    if losses[0] != losses[1]:
        raise AssertionError(
            f"{training.script.SCRIPT}: loss {losses[0]} from the loader, {losses[1]} from memory"
        )


def main() -> None:
    quick = parse_quick(__doc__)
    use_one_thread()
    report = Report("epoch_vs_memory", "Epoch against the same steps on tensors in memory", quick)
    for name in SCRIPTS:
        training = prepare(name)
        steps = min(len(training.sampler), 1 if quick else STEPS.get(name, DEFAULT_STEPS))
        training.sampler.start(epoch=1)
        batches = [training.train.__getitems__(training.sampler.part(step)[0]) for step in range(steps)]
        memory = InMemory(batches, training.train, training.sampler)
        check_equal(training, memory, steps)
        timings = measure(
            {
                f"{name}, {steps} steps": lambda t=training, s=steps: t.epoch(steps=s),
                f"{name}, in memory": lambda t=training, m=memory, s=steps: t.epoch(m, steps=s),
            },
            *((2, 0.01) if quick else (7, 0.3)),
        )
        report.timings(timings)
        report.judge(
            f"{name}: epoch / in memory", times_faster(*timings.values()), at_most=1.10, aim="<= 1.03"
        )
    report.note(f"{torch.get_num_threads()} thread, `--num_workers 0`.")
    report.finish()


if __name__ == "__main__":
    main()
