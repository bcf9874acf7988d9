"""What a training step needs and what one core delivers, for docs/scaling.md.

    python -m benchmarks resources

Operations are counted with torch.utils.flop_counter on small batches; "kept" is what autograd keeps for the
backward pass, in float32. The rates are timed.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.report import Report
from benchmarks.scripts import prepare
from datasets.anovox.augmentation import augment_frames
from datasets.jrdb.augmentation import augment_pairs
from datasets.jrdb.features import feature_names
from models.age import AgeRegressor
from models.anomaly import AnomalyDetectionModel
from models.encoders import build_encoder
from models.pairs import PairClassifier

Counted = tuple[int, nn.Module, dict[str, Tensor], Callable]  # samples, model, inputs, forward pass


def need_of_pairs(backbone: str) -> Counted:
    pairs, people = 10, 14  # 1.4 people are encoded per pair, as in docs/scaling.md
    model = PairClassifier(build_encoder(backbone), len(feature_names()))
    batch = {
        "crops": torch.randint(0, 256, (people, 3, 128, 64), dtype=torch.uint8),
        "left": torch.arange(pairs) % people,
        "right": (torch.arange(pairs) + 1) % people,
        "geometry": torch.randn(pairs, len(feature_names())),
    }
    return pairs, model, batch, lambda: model(batch)


def need_of_age(backbone: str, pixels: int) -> Counted:
    model = AgeRegressor(build_encoder(backbone))
    grey = torch.randint(0, 256, (2, 1, pixels, pixels), dtype=torch.uint8)  # one channel travels
    return 2, model, {"images": grey}, lambda: model(grey.expand(-1, 3, -1, -1))


def need_of_anomaly(height: int, width: int, points: int) -> Counted:
    model = AnomalyDetectionModel()
    inputs = {
        "images": torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8),
        "points": torch.randn(2, points, 4) * 5,
        "point_mask": torch.ones(2, points, dtype=torch.bool),
        "point_pixels": torch.rand(2, points, 2) * 2 - 1,
    }
    return 2, model, inputs, lambda: model(*inputs.values())


CASES = {  # the script's own batch, and what is counted
    "stage 1 and 2, cnn @128x64": (16, partial(need_of_pairs, "cnn")),
    "stage 1 and 2, mobilenet_v2 @128x64": (16, partial(need_of_pairs, "mobilenet_v2")),
    "age, resnet18 @96": (32, partial(need_of_age, "resnet18", 96)),
    "age, resnet50 @224 (default)": (32, partial(need_of_age, "resnet50", 224)),
    "anomaly @128x192, 1,024 points (default)": (8, partial(need_of_anomaly, 128, 192, 1024)),
    "anomaly @512x768, 4,096 points": (8, partial(need_of_anomaly, 512, 768, 4096)),
}


def count(samples: int, model: nn.Module, inputs: dict[str, Tensor], forward: Callable) -> np.ndarray:
    """Per sample: GFLOP, MiB kept for the backward pass, kB of input; and million parameters.

    The forward pass is counted, the backward pass charged as two of them: the counter itself takes the
    backward of a depthwise convolution for a full one.
    """
    kept, own = {}, {p.data_ptr() for p in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    model.train()
    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    size = sum(tensor.numel() * tensor.element_size() for tensor in inputs.values())
    per_sample = np.array([3 * counter.get_total_flops() / 1e9, sum(kept.values()) / 2**20, size / 1e3])
    return np.append(per_sample / samples, sum(p.numel() for p in model.parameters()) / 1e6)


def loader_variants(name: str) -> tuple[dict[str, Callable[[], object]], int]:
    """A batch from the warm cache and the host's part of its augmentation; the samples in it.

    Pixels are augmented on the device; images of one pixel leave random numbers, geometry and calls.
    """
    one = prepare(name)
    rows = one.sampler.part(0)[0]
    batch, pixels = one.train.__getitems__(rows), "crops" if name == "train_stage1" else "images"
    batch[pixels] = batch[pixels][:, :, :1, :1]
    augment = {
        "train_stage1": lambda: augment_pairs(batch, one.train.feature_names, 0, 1),
        "train_mae": lambda: one.augmentation["transform"](batch[pixels], batch["indices"], 1),
        "train_anomaly_with_labels": lambda: augment_frames(batch, 0, 1),
    }
    read = partial(one.train.__getitems__, rows)
    return {f"{name}: batch from the cache": read, f"{name}: augmentation, host": augment[name]}, len(rows)


def resources(report: Report, quick: bool) -> None:
    """What a step needs, and what one core delivers."""
    torch.set_num_threads(1)
    rows = []
    for name, (batch, build) in CASES.items():
        flops, kept, inputs, parameters = count(*build())
        figures = flops, batch * flops, batch * kept, inputs, parameters, 4e6 * parameters / 2**20
        rows.append([name, batch, *(f"{figure:.3g}" for figure in figures)])
    header = ["script", "batch", "GFLOP per sample", "GFLOP per step", "kept MiB per step"]
    report.table([*header, "input kB per sample", "million parameters", "gradients MiB"], rows)
    timings, rates = {}, []
    for name in ("train_stage1", "train_mae", "train_anomaly_with_labels"):
        variants, samples = loader_variants(name)
        found = report.measure(variants)
        rates += [[key, f"{samples / np.median(timing.wall):,.0f}"] for key, timing in found.items()]
        timings |= found
    report.timings(timings, "ms")
    report.table(["one core", "samples per second"], rates)
