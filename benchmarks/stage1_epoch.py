"""One epoch of stage 1 against the naive pipeline on the same frames with the same model.

    python -m benchmarks.stage1_epoch

Naive: every annotated pair in range and the negatives beside it (no limit per group), the panorama decoded
per pair, both people of each pair encoded. Ours: train_stage1.train_one_epoch with its default sampling.
Neither augments. Before the timing, the logits of the same pairs presented in both ways are compared.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.pair_loader import NaivePairs
from benchmarks.report import Report, parse_quick
from benchmarks.scripts import Training, prepare, use_one_thread
from benchmarks.timing import measure, times_faster
from datasets.jrdb.dataset import JRDBPairDataset
from utils.training import distributed

EVERY_POSITIVE = ["--no-use_group_sampling"]


def on_frames(training: Training, frames: int) -> None:
    """Restrict the training to the samples of the first frames that have any."""
    train = training.train
    kept = np.isin(train.frames, np.unique(train.frames)[:frames])
    training.train = train.select(np.flatnonzero(kept))
    processes, args = distributed.Processes(0, 1, training.device), training.args
    training.sampler = distributed.EpochSampler(
        len(training.train), args.batch_size, args.seed, processes, frames=training.train.frames
    )
    training.loader = distributed.make_loader(training.train, training.sampler, 0, training.device)


def naive_loader(training: Training, pairs: JRDBPairDataset) -> DataLoader:
    dataset = NaivePairs(pairs, training.data.data_path, tuple(training.args.image_size))
    return DataLoader(dataset, batch_size=training.args.batch_size, shuffle=True)


def naive_logits(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Both people of every pair go through the encoder, however often they are in the batch."""
    left, right = model.person(batch["left"]), model.person(batch["right"])
    geometry = model.geometry(batch["geometry"])
    return model.stage1_head(torch.cat([left, right, geometry], dim=1))


def naive_epoch(training: Training, loader: DataLoader) -> None:
    """The same step as the script's: the same loss, optimizer, and check of the gradient."""
    model, trainable = training.model.train(), [p for p in training.model.parameters() if p.requires_grad]
    for batch in loader:
        loss = training.criterion(naive_logits(model, batch), batch["label"]).mean()
        training.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trainable, math.inf)
        training.optimizer.step()


@torch.no_grad()
def check_equal(training: Training) -> None:
    """In evaluation mode (BatchNorm sees other batches otherwise) both ways give the same logits."""
    model, rows = training.model.eval(), list(range(min(16, len(training.train))))
    ours = model(training.train.__getitems__(rows))
    dataset = NaivePairs(training.train, training.data.data_path, tuple(training.args.image_size))
    naive = naive_logits(model, next(iter(DataLoader(dataset, batch_size=len(rows)))))
    torch.testing.assert_close(ours, naive, rtol=1e-4, atol=1e-5)


def main() -> None:
    quick = parse_quick(__doc__)
    use_one_thread()
    report = Report("stage1_epoch", "Whole stage 1 epoch against the naive pipeline", quick)
    training = prepare("train_stage1", ["--no-augment"])
    everything = prepare("train_stage1", ["--no-augment", *EVERY_POSITIVE])
    share = len(training.train) / len(everything.train)
    frames = 2 if quick else 12
    for one in (training, everything):
        on_frames(one, frames)
    check_equal(training)
    loader = naive_loader(training, everything.train)
    timings = measure(
        {
            f"naive, {len(everything.train)} pairs": lambda: naive_epoch(training, loader),
            f"train_stage1, {len(training.train)} pairs": training.epoch,
        },
        *((2, 0.01) if quick else (7, 0.3)),
    )
    report.timings(timings)
    naive, ours = timings.values()
    report.judge(
        "stage 1 epoch, share of the naive epoch's time",
        times_faster(ours, naive),
        at_most=0.15,
        aim="<= .05",
    )
    report.note(
        f"1 thread, {frames} frames of the sample. The sampler keeps {share:.2f} of the pairs of the whole "
        f"train split, {len(training.train) / len(everything.train):.2f} on these frames; the rest is the "
        "cache and one encoding per person."
    )
    report.finish()


if __name__ == "__main__":
    main()
