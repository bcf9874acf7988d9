"""How many people are encoded per pair of a training batch, when nobody is encoded twice?

    python -m benchmarks.crops_per_pair

Counted over one epoch of train_stage1 on the built-in sample; 2 is what encoding both people of each pair
costs. No batch can do better than the people per pair of whole frames.
"""

import numpy as np

from benchmarks.report import Report, exactly, parse_quick
from benchmarks.scripts import prepare
from datasets.jrdb.dataset import JRDBPairDataset
from utils.training.distributed import EpochSampler, Processes


def crops_per_pair(pairs: JRDBPairDataset, batch_size: int, seed: int, processes: Processes) -> float:
    """People encoded over pairs trained on, one epoch."""
    batches = EpochSampler(len(pairs), batch_size, seed, processes, frames=pairs.frames)
    return sum(distinct_people(pairs, batch) for batch in batches) / len(pairs)


def distinct_people(pairs: JRDBPairDataset, batch: list[int] | np.ndarray) -> int:
    return len(np.unique(np.concatenate([pairs.left[batch], pairs.right[batch]])))


def main() -> None:
    report = Report("crops_per_pair", "People encoded per pair", parse_quick(__doc__))
    training = prepare("train_stage1", ["--features", "geometry"])
    train, default = training.train, training.args.batch_size
    processes = Processes(0, 1, training.device)
    sizes = sorted({default, 16, 32, 48, 64, 128})
    found = {size: crops_per_pair(train, size, training.args.seed, processes) for size in sizes}
    bound = distinct_people(train, np.arange(len(train))) / len(train)
    unsampled = len(np.unique(np.r_[training.data.val.left, training.data.val.right])) / len(
        training.data.val
    )
    rows = [
        [f"{size}{' (default)' if size == default else ''}", f"{value:.3f}"] for size, value in found.items()
    ]
    report.table(["pairs per batch", "people encoded per pair"], [*rows, ["whole frames", f"{bound:.3f}"]])
    report.judge(
        f"people encoded per pair, batches of {default}", exactly(found[default]), at_most=1.3, unit=""
    )
    report.note(
        f"Validation scores every pair in range, whole frames at a time: {unsampled:.2f} people per pair."
    )
    report.finish()


if __name__ == "__main__":
    main()
