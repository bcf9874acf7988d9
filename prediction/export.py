"""A trained model as one file that runs without this project: a torch.export program with a dynamic batch.

    program = torch.export.load("model.pt2", extra_files=(about := {"about.json": ""})).module()
    logits = program(images, points, point_mask, point_pixels)

The program takes what the data sets deliver (images and crops as uint8) and returns what the model returns:

age      images (B, 3, H, W)                                        -> ages (B,)
anomaly  images, points, point_mask, point_pixels                   -> logits (B,), cells (B, rows, columns)
stage 1  crops (P, 3, H, W), left (N,), right (N,), geometry (N, G) -> logits (N, 2)
stage 2  the same                                                   -> those, and logits (N, 5) of the types

A model of crops or of geometry alone takes only what it reads. P people and N pairs vary
independently. about.json in the file says what the outputs mean: class names, threshold, unit, and the scales
of the probabilities: sigmoid(slope * x + offset), where x is the logit of an anomaly or, of stage 1, the
second logit minus the first; for the types softmax(logits / temperature).
"""

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prediction.trained import Trained
from utils.run.errors import CommandError, ScriptError
from utils.run.folder import plain, write_bytes
from utils.run.log import LOG

TOLERANCE = 1e-5
TRACED, CHECKED = 3, (1, 7)  # samples the program is traced with, and those it is compared on
RECORDED = ("script", "epoch", "class_names", "feature_names", "threshold", "calibration", "temperature",
            "target_unit")  # fmt: skip


class Program(nn.Module):
    """A model on plain tensors, the inputs of its name, as it is exported; of pairs one or two `stages`.

    It is not exported bare: a part of it called `code`, as the anomaly model's is, would hide an attribute of
    the exported module.
    """

    def __init__(self, model: nn.Module, inputs: tuple[str, ...], stages: int = 0):
        super().__init__()
        self.model, self.inputs, self.stages = model, inputs, stages

    def forward(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        if not self.stages:
            return self.model(*tensors)
        batch = dict(zip(self.inputs, tensors, strict=True))
        return self.model.both_stages(batch) if self.stages == 2 else (self.model(batch),)


def export_model(trained: Trained, path: Path) -> float:
    """Write `path` and return the largest difference from the eager model on batches of other sizes.

    Raises CommandError where the file can not be written, ScriptError when the program gives other numbers.
    """
    if path.suffix != ".pt2":
        raise CommandError(f"--export {path}: a name ending in .pt2 is expected")
    if not path.absolute().parent.is_dir():
        raise CommandError(f"--export {path}: no folder {path.parent}")
    # On the CPU and in the plain memory layout, so that the file asks for neither a GPU nor channels_last.
    trained.model.to("cpu", memory_format=torch.contiguous_format)
    model = as_program(trained)
    inputs = model.inputs
    example = make_inputs(trained, inputs, TRACED)
    batch = {name: torch.export.Dim(name) for name in ("samples", "people")}
    shapes = tuple({0: batch["people" if name == "crops" else "samples"]} for name in inputs)
    with torch.no_grad():
        # Not strict, torch 2.14 takes the batch of the attention for a constant.
        program = torch.export.export(model, tuple(example.values()), dynamic_shapes=(shapes,), strict=True)
        allow_one_sample(program)
        buffer = io.BytesIO()
        about = {key: trained.state[key] for key in RECORDED if key in trained.state}
        about |= {"inputs": list(inputs), "args": trained.state["args"]}
        torch.export.save(program, buffer, extra_files={"about.json": json.dumps(plain(about), indent=2)})
        buffer.seek(0)
        loaded = torch.export.load(buffer).module()  # what is checked is what was written
        difference = 0.0
        for samples in CHECKED:
            check = make_inputs(trained, inputs, samples).values()
            pairs = zip(as_tuple(loaded(*check)), as_tuple(model(*check)), strict=True)
            difference = max(difference, *(float((a - b).abs().max()) for a, b in pairs))
    if not difference < TOLERANCE:
        raise ScriptError(
            f"the exported program differs from the model by {difference:.3g}, more than {TOLERANCE:g}\n"
            "nothing was written"
        )
    try:
        write_bytes(path, buffer.getbuffer())
    except OSError as error:
        raise CommandError(f"--export {path}: cannot be written ({error.strerror})") from error
    LOG.info(
        f"{path}: takes {', '.join(f'{name} {describe(tensor)}' for name, tensor in example.items())}; "
        f"largest difference from the model {difference:.3g}, on {' and '.join(map(str, CHECKED))} samples "
        f"(traced on {TRACED})"
    )
    return difference


def allow_one_sample(program: torch.export.ExportedProgram) -> None:
    """Drop the trace's assertions: that of scatter_reduce in models/pointnet.py holds from two samples on.

    No result depends on them, and the numbers on one sample are compared with the model's.
    """
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()


def as_program(trained: Trained) -> Program:
    """What is exported."""
    model = trained.model
    if trained.task["data"] != "jrdb":
        return Program(model, getattr(trained.script, "INPUTS", ("images",))).eval()
    inputs = ("crops", "left", "right") if "crops" in trained.args.features else ()
    inputs += ("geometry",) if "geometry" in trained.args.features else ()
    return Program(model, inputs, stages=2 if trained.task["task"] == "stage2" else 1).eval()


def make_inputs(trained: Trained, names: tuple[str, ...], samples: int) -> dict[str, Tensor]:
    """Random inputs as the data sets deliver them, and what is special: padding, no point at all, no past."""
    options, rng = trained.args, torch.Generator().manual_seed(samples)
    people = samples + 2
    points = getattr(options, "max_points", 0)
    mask = torch.rand(samples, points, generator=rng) < 0.7
    mask[-1, -points // 2 :] = False
    mask[1:2] = False  # of one sample, some points are kept
    inputs = {
        "images": torch.randint(256, (samples, 3, *options.image_size), dtype=torch.uint8, generator=rng),
        "crops": torch.randint(256, (people, 3, *options.image_size), dtype=torch.uint8, generator=rng),
        "left": torch.randint(people, (samples,), generator=rng),
        "right": torch.randint(people, (samples,), generator=rng),
        "points": 20 * torch.rand(samples, points, 4, generator=rng) * mask[..., None],
        "point_mask": mask,
        "point_pixels": torch.where(
            mask[..., None], 2 * torch.rand(samples, points, 2, generator=rng) - 1, 2.0
        ),
    }
    if "geometry" in names:
        inputs["geometry"] = torch.randn(samples, len(trained.state["feature_names"]), generator=rng)
        inputs["geometry"][-1, -1] = torch.nan  # no past
    return {name: inputs[name] for name in names}


def as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def describe(tensor: Tensor) -> str:
    """'uint8 (*, 3, 96, 96)': the first dimension is free."""
    sizes = ", ".join(["*", *map(str, tensor.shape[1:])])
    return f"{str(tensor.dtype).removeprefix('torch.')} ({sizes})"
