"""What a training step needs and what one core delivers, for docs/scaling.md.

    python -m benchmarks.resources

Operations are counted on the CPU with torch.utils.flop_counter over the forward pass of a small batch, per
sample, and the backward pass is charged twice that. "Kept" is what autograd keeps for the backward pass, in
float32. The rates are timed: a batch from the warm cache, and the augmentation where the CPU does it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.anomaly_step import make_batch
from benchmarks.report import Report, parse_quick
from benchmarks.scripts import prepare, use_one_thread
from benchmarks.timing import measure
from datasets.anovox.augmentation import augment_frames
from datasets.jrdb.augmentation import augment_pairs
from datasets.jrdb.features import feature_names
from models.age import AgeRegressor
from models.anomaly import AnomalyDetectionModel
from models.encoders import build_encoder
from models.pairs import TwoStageInteractionClassifier

PEOPLE_PER_PAIR = 1.4  # see crops_per_pair
PAIRS, SAMPLES = 10, 2  # small batches to count on
BACKWARD = 2  # forward passes; the counter itself takes a depthwise convolution's backward for a full one


@dataclass
class Need:
    """Per sample: forward and backward operations, bytes kept for backward and of input; and parameters."""

    flops: float
    kept: float
    inputs: float
    parameters: int


def count(model: nn.Module, forward: Callable[[], Tensor], inputs: dict[str, Tensor], samples: int) -> Need:
    """Count one forward pass over `samples` samples; the backward pass is charged as BACKWARD of them."""
    kept: dict[int, int] = {}
    own = {p.data_ptr() for p in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    model.train()
    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    size = sum(t.numel() * t.element_size() for t in inputs.values())
    parameters = sum(p.numel() for p in model.parameters())
    flops = (1 + BACKWARD) * counter.get_total_flops()
    return Need(flops / samples, sum(kept.values()) / samples, size / samples, parameters)


def need_of_pairs(backbone: str, height: int, width: int) -> Need:
    names = feature_names()
    model = TwoStageInteractionClassifier(build_encoder(backbone), len(names))
    people = int(PAIRS * PEOPLE_PER_PAIR)
    batch = {
        "crops": torch.randint(0, 256, (people, 3, height, width), dtype=torch.uint8),
        "left": torch.arange(PAIRS) % people,
        "right": (torch.arange(PAIRS) + 1) % people,
        "geometry": torch.randn(PAIRS, len(names)),
    }
    return count(model, lambda: model(batch).sum(), batch, PAIRS)


def need_of_age(backbone: str, pixels: int) -> Need:
    model = AgeRegressor(build_encoder(backbone))
    grey = torch.randint(0, 256, (SAMPLES, 1, pixels, pixels), dtype=torch.uint8)  # one channel travels
    return count(model, lambda: model(grey.expand(-1, 3, -1, -1)).sum(), {"images": grey}, SAMPLES)


def need_of_anomaly(height: int, width: int, points: int) -> Need:
    model, batch = AnomalyDetectionModel(), make_batch(SAMPLES, height, width, points)
    inputs = {name: batch[name] for name in ("images", "points", "point_mask", "point_pixels")}

    def forward() -> Tensor:
        logits, cells = model(*inputs.values())
        return logits.sum() + cells.sum()

    return count(model, forward, inputs, SAMPLES)


CASES: dict[str, tuple[int, Callable[[], Need]]] = {
    "stage 1 and 2, cnn @128x64": (16, lambda: need_of_pairs("cnn", 128, 64)),
    "stage 1 and 2, mobilenet_v2 @128x64": (16, lambda: need_of_pairs("mobilenet_v2", 128, 64)),
    "age, resnet18 @96": (32, lambda: need_of_age("resnet18", 96)),
    "age, resnet50 @224 (default)": (32, lambda: need_of_age("resnet50", 224)),
    "anomaly @128x192, 1,024 points (default)": (8, lambda: need_of_anomaly(128, 192, 1024)),
    "anomaly @512x768, 4,096 points": (8, lambda: need_of_anomaly(512, 768, 4096)),
}


def loader_rates(quick: bool) -> tuple[dict, dict[str, int]]:
    """Timings of a batch from the warm cache and of the host's part of its augmentation.

    Also returns the samples in each. Pixels are augmented on the device; images of one pixel leave random
    numbers, geometry and calls.
    """
    variants, samples = {}, {}
    for name in ("train_stage1", "train_mae", "train_anomaly_with_labels"):
        one = prepare(name)
        rows = one.sampler.part(0)[0]
        batch = one.train.__getitems__(rows)
        variants[f"{name}: batch from the cache"] = lambda one=one, rows=rows: one.train.__getitems__(rows)
        pixels = "crops" if name == "train_stage1" else "images"
        batch[pixels] = batch[pixels][:, :, :1, :1]
        if name == "train_stage1":
            augment = partial(augment_pairs, batch, one.train.feature_names, 0, 1)
        elif name == "train_mae":
            augment = partial(one.script.augment, batch[pixels], batch["indices"], 1, one.args)
        else:
            augment = partial(augment_frames, batch, 0, 1)
        variants[f"{name}: augmentation, host"] = augment
        samples |= {key: len(rows) for key in variants if key.startswith(name)}
    return measure(variants, *((2, 0.01) if quick else (7, 0.3))), samples


def main() -> None:
    quick = parse_quick(__doc__)
    use_one_thread()
    report = Report("resources", "What a step needs, and what one core delivers", quick)
    rows = []
    for name, (batch, counted) in CASES.items():
        need = counted()
        step = batch * need.flops / 1e9, batch * need.kept / 2**20
        size = need.inputs / 1e3, need.parameters / 1e6, 4 * need.parameters / 2**20
        rows.append([name, batch, *(f"{figure:.3g}" for figure in (need.flops / 1e9, *step, *size))])
    header = ["script", "batch", "GFLOP per sample", "GFLOP per step", "kept MiB per step"]
    header += ["input kB per sample", "million parameters", "gradients MiB"]
    report.table(header, rows)
    timings, samples = loader_rates(quick)
    report.timings(timings, "ms")
    rates = [[name, f"{samples[name] / np.median(timing.cpu):,.0f}"] for name, timing in timings.items()]
    report.table(["one core", "samples per CPU second"], rates)
    report.finish()


if __name__ == "__main__":
    main()
