"""One training step of the anomaly model against a model after the requirement's description.

    python -m benchmarks.anomaly_step

At 512x768, batch 8, 4,096 points. The described model is run naively: convolutions at full resolution with
ReLU and max-pooling behind each, a PointNet, one attention, float32, contiguous tensors, an optimizer that
loops over parameters. The description leaves sizes open; these were chosen so that it has the stated 792,321
parameters. It is another function than ours, so there is nothing to compare bit for bit; that it computes
what its layers say is checked by the same layers with pooling before ReLU, which must give the same logits.
How well either model learns is in docs/results.md, not here.

Each variant lives in a process of its own: like the scripts, ours keeps freed memory, which
is a setting of the whole process.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.report import Report
from benchmarks.scripts import use_one_thread
from benchmarks.timing import has_bf16, measure, peak_memory_mb, times_faster
from benchmarks.worker import Worker, serve
from models.anomaly import AnomalyDetectionModel
from train_anomaly_with_labels import AnomalyLoss, location_loss
from utils.training.device import autocast, keep_freed_memory

BATCH, HEIGHT, WIDTH, POINTS = 8, 512, 768, 4096
PARAMETERS = 792_321
VARIANTS = {"naive": "the requirement's layers, fp32", "fp32": "ours, fp32", "amp": "ours, --amp (bf16)"}
NO_BF16 = " This processor has no bf16, so --amp was not measured."


class RequirementModel(nn.Module):
    """Image CNN 32-64-128, point network 4-64-128-256, points attend to the image, head 512-512-256-1."""

    def __init__(self, pool_first: bool = False):
        super().__init__()
        self.pool_first = pool_first
        self.convolutions = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1) for i, o in ((3, 32), (32, 64), (64, 128))
        )
        self.points = nn.Sequential(
            nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 256)
        )
        self.attention = nn.MultiheadAttention(256, 4, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.3), nn.Linear(512, 256), nn.ReLU(), nn.Dropout(0.3),
            nn.Linear(256, 1),
        )  # fmt: skip

    def forward(self, images: Tensor, points: Tensor) -> Tensor:
        """images (B, 3, H, W) float, points (B, N, 4) -> logits (B,)."""
        for convolution in self.convolutions:
            if self.pool_first:  # the maximum of the rectified is the rectified maximum
                images = F.relu(F.max_pool2d(convolution(images), 2))
            else:
                images = F.max_pool2d(F.relu(convolution(images)), 2)
        tokens = F.adaptive_avg_pool2d(images, 4).flatten(1).unflatten(1, (8, 256))  # (B, 8, 256)
        features = self.points(points)  # (B, N, 256)
        found, _ = self.attention(features, tokens, tokens)
        return self.head(torch.cat([found.amax(dim=1), tokens.mean(dim=1)], dim=1)).squeeze(1)


def check_requirement_model() -> None:
    """The size the requirement states, and layers that do what they say."""
    torch.manual_seed(0)
    plain, pooled = RequirementModel().eval(), RequirementModel(pool_first=True).eval()
    if (count := sum(p.numel() for p in plain.parameters())) != PARAMETERS:
        raise AssertionError(f"{count} parameters, the requirement's model has {PARAMETERS}")
    pooled.load_state_dict(plain.state_dict())
    images, points = torch.rand(2, 3, 32, 48), torch.randn(2, 10, 4)
    torch.testing.assert_close(plain(images, points), pooled(images, points))


def make_batch(batch: int, height: int, width: int, points: int) -> dict[str, Tensor]:
    """Random frames in the shapes and types of AnoVoxDataset."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8, generator=generator)
    return {
        "images": images.permute(0, 3, 1, 2),
        "points": torch.randn(batch, points, 4, generator=generator) * 5,
        "point_mask": torch.ones(batch, points, dtype=torch.bool),
        "point_pixels": torch.rand(batch, points, 2, generator=generator) * 2 - 1,
        "labels": torch.arange(batch) % 2,
        "cells": torch.zeros(batch, 8, 12),
    }


def naive_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor]) -> None:
    """Float images from the loader, binary cross-entropy, Adam."""
    images = batch["images"].float().contiguous() / 255
    loss = F.binary_cross_entropy_with_logits(model(images, batch["points"]), batch["labels"].float())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def our_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor], amp: bool) -> None:
    """The step of train_anomaly_with_labels.py, with the loss of where the anomaly is."""
    with autocast(torch.device("cpu"), amp):
        logits, cells = model(*(batch[name] for name in ("images", "points", "point_mask", "point_pixels")))
    losses = AnomalyLoss(1.0)(logits.float(), batch["labels"])
    loss = (losses + 0.1 * location_loss(cells.float(), batch["cells"])).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def build_step(variant: str, batch: dict[str, Tensor]) -> Callable[[], None]:
    """A call that trains one step of `variant`, a key of VARIANTS."""
    if variant == "naive":
        model = RequirementModel()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, foreach=False)
        return lambda: naive_step(model, optimizer, batch)
    keep_freed_memory()
    model = AnomalyDetectionModel().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    return lambda: our_step(model, optimizer, batch, amp=variant == "amp")


def work(variant: str, quick: bool) -> None:
    """The worker of one variant: a step per round, and the most memory held so far."""
    use_one_thread()
    batch = make_batch(2, 256, 384, POINTS) if quick else make_batch(BATCH, HEIGHT, WIDTH, POINTS)
    step = build_step(variant, batch)

    def run() -> dict[str, float]:
        step()
        return {"memory_mb": peak_memory_mb()}

    serve(run)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rounds on little data: for development")
    parser.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args.worker, args.quick)
    check_requirement_model()
    report = Report("anomaly_step", "Anomaly training step, 512x768, batch 8, 4,096 points", args.quick)
    names = VARIANTS if has_bf16() else {key: name for key, name in VARIANTS.items() if key != "amp"}
    start = [sys.executable, "-m", "benchmarks.anomaly_step", *["--quick"] * args.quick, "--worker"]
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(Worker([*start, variant])) for variant, name in names.items()}
        timings = measure(workers, *((2, 0.01) if args.quick else (7, 0.3)))
    report.timings(timings)
    (_, slow), *fast = timings.items()
    for name, timing in fast:
        report.judge(
            f"anomaly step, {name}, times faster", times_faster(slow, timing), at_least=2.5, aim=">= 5x"
        )
    held = ", ".join(f"{name} {worker.answers[-1]['memory_mb']:,.0f} MB" for name, worker in workers.items())
    report.note(f"1 thread. Most memory held: {held}." + ("" if has_bf16() else NO_BF16))
    report.finish()


if __name__ == "__main__":
    main()
