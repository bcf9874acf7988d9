"""Export a trained model as one file that runs without this project: a torch.export program.

    program = torch.export.load("model.pt2", extra_files=(about := {"about.json": ""})).module()
    (years,) = program(torch.from_numpy(grey)[None, None])          # uint8 (H, W) of any size

The program includes pre- and postprocessing: it takes pixels as in the file, uint8 of any size, resizes them
as in training, and returns ages or probabilities. INPUTS and OUTPUTS describe them. A model of anomalies has
images and points whatever it uses; one of pairs only what it uses. One that rescores pairs has `persons` too,
and needs all pairs in range of whole frames in one call. Batch sizes are dynamic; those of people and pairs
are independent. about.json has inputs and outputs, threshold, unit, class names and geometry columns.
"""

import io
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.ultrasound.dataset import blank_text
from prediction.trained import Trained
from utils.run.errors import CommandError, ScriptError
from utils.run.folder import plain, write_bytes
from utils.run.log import LOG

TOLERANCE = 1e-5  # for probabilities, and for ages in standard deviations of the train split
TRACED, CHECKED = 3, (1, 7)  # batch sizes: one to trace the program with, two to compare it on
PIXELS = "uint8 0..255 as in the file, any height and width; resized inside"
INPUTS = {
    "images": f"(B, channels, H, W) {PIXELS}; 1 channel is luminance, 3 are red, green, blue",
    "crops": f"(P, 3, H, W) one per person, red, green, blue, {PIXELS}; cut as datasets/jrdb/crops.py says",
    "left": "(N,) int64, row (of crops or persons) of each pair's left person, the short way round",
    "right": "(N,) int64, row of the other person",
    "persons": "(P,) int64, any numbers, one per person of whole frames, whose other pairs affect a pair",
    "geometry": "(N, G) float32, the columns geometry_columns; NaN where there is no past",
    "points": "(B, N, 4) float32, x forward, y left, z up in metres, intensity; N is max_points",
    "point_mask": "(B, N) bool, True for a point, False for padding",
    "point_pixels": "(B, N, 2) float32, position of a point in the image, -1..1 rightwards and downwards; "
    "2 for points outside it and padding",
}
OUTPUTS = {
    "ultrasound": {"ages": "(B,) in the unit of the table, see target_unit"},
    "anovox": {
        "probability": "(B,) calibrated probability of an anomaly in the frame; an alarm from `threshold` on",
        "cells": "(B, rows, columns) probability of an anomaly in each cell of the image",
        "marks": "(B, N) probability that a point lies on an anomaly",
    },
    "jrdb": {
        "p_interaction": "(N,) calibrated probability that the pair interacts; a yes from `threshold` on",
        "p_types": "(N, types) probability of each of class_names, in this order, if the pair interacts",
    },
}


class Program(nn.Module):
    """The exported module: pixels and plain tensors in, OUTPUTS out. (If the anomaly model were exported
    directly, its part named `code` would hide an attribute of the exported module.)"""

    def __init__(self, trained: Trained):
        super().__init__()
        args, self.data, self.stages = trained.args, trained.task["data"], 0
        self.model, self.size = trained.model, tuple(args.image_size)
        self.mask_text, state = getattr(args, "mask_text", False), trained.state
        self.calibration, self.temperature = state.get("calibration"), state.get("temperature", 1.0)
        self.inputs = getattr(trained.script, "INPUTS", ("images",))
        if self.data == "jrdb":
            self.inputs = ("crops",) * ("crops" in args.features)
            self.inputs += ("left", "right") * ("crops" in args.features or args.rescore)
            self.inputs += ("persons",) * args.rescore + ("geometry",) * ("geometry" in args.features)
            self.stages = 2 if trained.task["task"] == "stage2" else 1
        self.outputs = tuple(OUTPUTS[self.data])[: self.stages or None]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        batch = dict(zip(self.inputs, tensors, strict=True))
        for name in {"images", "crops"} & set(batch):
            batch[name] = F.interpolate(batch[name], self.size, mode="bilinear", antialias=True)
        if self.data == "ultrasound":
            images = blank_text(batch["images"]) if self.mask_text else batch["images"]
            return (self.model(images),)
        if self.data == "anovox":
            logits, cells, marks = self.model(*batch.values())
            return self.probability(logits), cells.sigmoid(), marks.sigmoid()
        if self.stages == 1:
            who = self.model(batch)
            return (self.probability(who[:, 1] - who[:, 0]),)
        how, who = self.model(batch, both=True)
        return self.probability(who[:, 1] - who[:, 0]), (how / self.temperature).softmax(dim=1)

    def probability(self, logits: Tensor) -> Tensor:
        """Calibrated with the scale that the run fitted on val."""
        return (self.calibration["slope"] * logits + self.calibration["offset"]).sigmoid()


def export_model(trained: Trained, path: Path) -> float:
    """Write `path` and return the largest difference from the eager model on other batch and image sizes.
    CommandError if `path` is unusable, ScriptError if the program's outputs differ from the model's."""
    if trained.task["data"] not in OUTPUTS:
        script, what = trained.state["script"], "needs a line in OUTPUTS (prediction/export.py)"
        raise CommandError(f"--export: a run of {script} is of a new task, which {what}")
    if path.suffix != ".pt2":
        raise CommandError(f"--export {path}: the name must end in .pt2")
    if not path.absolute().parent.is_dir():
        raise CommandError(f"--export {path}: no folder {path.parent}")
    # On the CPU and in the default memory format, so that the file requires neither a GPU nor channels_last.
    trained.model.to("cpu", memory_format=torch.contiguous_format).requires_grad_(False)
    model = Program(trained).eval()
    example = make_inputs(trained, model.inputs, TRACED)
    size = {name: torch.export.Dim(name) for name in ("samples", "people", "height", "width")}
    sides, of_people = {2: size["height"], 3: size["width"]}, ("crops", "persons")
    shapes = tuple({0: size["people" if name in of_people else "samples"]}
                   | (sides if name in ("images", "crops") else {}) for name in model.inputs)  # fmt: skip
    with torch.no_grad():
        # With strict=False, torch 2.14 takes the batch size in the attention for a constant.
        program = torch.export.export(model, tuple(example.values()), dynamic_shapes=(shapes,), strict=True)
        allow_one_sample(program)
        buffer = io.BytesIO()
        about = json.dumps(plain(describe(trained, model)), indent=2)
        torch.export.save(program, buffer, extra_files={"about.json": about})
        buffer.seek(0)
        loaded = torch.export.load(buffer).module()  # check the program as it was written
        scale, off = float(getattr(trained.model, "target_sd", 1.0)), []
        for samples in CHECKED:
            check = make_inputs(trained, model.inputs, samples).values()
            pairs = zip(loaded(*check), model(*check), strict=True)
            off += [float((a - b).abs().max()) / scale for a, b in pairs]
        difference = max(off)
    if not difference < TOLERANCE:
        what = f"the exported program differs from the model by {difference:.3g}, more than {TOLERANCE:g}"
        raise ScriptError(f"{what}\nnothing was written")
    write_bytes(path, buffer.getbuffer())
    LOG.info(
        f"{path}: takes {', '.join(model.inputs)}, returns {', '.join(model.outputs)}; largest difference "
        f"from the model {difference:.3g}, on {' and '.join(map(str, CHECKED))} samples (traced on {TRACED})"
    )
    return difference


def describe(trained: Trained, program: Program) -> dict[str, Any]:
    """about.json: everything needed to call the program and to interpret its outputs."""
    state, outputs = trained.state, OUTPUTS[program.data]
    kept = ("script", "epoch", "class_names", "threshold", "target_unit", "intensity_range", "args")
    about = {key: state[key] for key in kept if key in state}
    about["inputs"] = {name: INPUTS[name] for name in program.inputs}
    about["outputs"] = {name: outputs[name] for name in program.outputs}
    about["resize"] = f"bilinear, antialiased, on uint8, to {list(program.size)} (height, width), done inside"
    if program.stages == 1:
        about["class_names"] = ["no interaction", "interaction"]
    if "geometry" in program.inputs:
        about["geometry_columns"] = state["feature_names"]
    return about


def allow_one_sample(program: torch.export.ExportedProgram) -> None:
    """Remove the assertions of the trace: that of segment_reduce in models/pointnet.py fails for one sample.
    They do not affect results, and export_model compares the outputs for one sample with the model's."""
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    for symbol in [s for s in program.range_constraints if str(s).startswith("u")]:
        del program.range_constraints[symbol]  # only the assertions used it; torch warns at every load
    program.graph_module.recompile()


def make_inputs(trained: Trained, names: tuple[str, ...], samples: int) -> dict[str, Tensor]:
    """Random inputs, with special cases: another image size, padding, a scan without points, no past."""
    options, rng = trained.args, torch.Generator().manual_seed(samples)
    people, points = samples + 2, getattr(options, "max_points", 0)
    height, width = (side + 8 * samples for side in options.image_size)
    mask = torch.rand(samples, points, generator=rng) < 0.7
    mask[-1, -points // 2 :] = False
    mask[1:2] = False  # an empty scan, if there are at least two samples
    pixels = 2 * torch.rand(samples, points, 2, generator=rng) - 1
    channels = 3 if getattr(options, "colour", True) else 1
    pairs = torch.combinations(torch.arange(people))  # (people * (people - 1) / 2, 2), each once
    left, right = pairs[torch.randperm(len(pairs), generator=rng)[:samples]].T

    def noise(count: int, channels: int) -> Tensor:
        return torch.randint(256, (count, channels, height, width), dtype=torch.uint8, generator=rng)

    inputs = {
        "images": noise(samples, channels),
        "crops": noise(people, 3),
        "left": left,
        "right": right,
        "persons": torch.arange(people),
        "points": 20 * torch.rand(samples, points, 4, generator=rng) * mask[..., None],
        "point_mask": mask,
        "point_pixels": torch.where(mask[..., None], pixels, 2.0),
    }
    if "geometry" in names:
        inputs["geometry"] = torch.randn(samples, len(trained.state["feature_names"]), generator=rng)
        inputs["geometry"][-1, -1] = torch.nan  # no past
    return {name: inputs[name] for name in names}
