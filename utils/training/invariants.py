"""Invariants of a correct training loop, checked while it runs: mistakes in the loop, not in the data.

Each stands for a mistake that people have made without noticing (docs/reliability.md). Most are checked in
the first two steps of the first two epochs, through hooks, so that scripts need no calls.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.run.signs import best_row
from utils.tasks import TASKS
from utils.training.checkpoint import Checkpoint
from utils.training.device import amp_dtype
from utils.training.distributed import gather
from utils.training.weights import fingerprints
from utils.training.worth import rolled

LOOKED_AT = 2  # steps at the start of each of the first two epochs whose tensors are checked
FOLLOWED = 4  # steps of the first epoch whose samples are compared with the second epoch
ENOUGH = 5  # steps until every weight has moved; in the first, a layer of zeros lets no gradient through
UNMOVED = 3e-5  # a smaller relative change of the weights in an epoch counts as none


class Invariants:
    """Watches one run from before its first step; warn(kind, text) reports a mistake, once for each kind.
    inputs: the keys of a batch that the model should use; target: the key of its labels."""

    def __init__(
        self, warn: Callable[[str, str], None], checkpoint: Checkpoint, criterion: nn.Module,
        loaders: dict[str, Any], inputs: Sequence[str], target: str,
    ):  # fmt: skip
        self.warn, self.checkpoint, self.run, self.loaders = warn, checkpoint, checkpoint.run, loaders
        self.inputs, self.target, self.flags = inputs, target, vars(checkpoint.run.args)
        self.judged = checkpoint.parts["model"]
        self.model = checkpoint.parts.get("trained", self.judged)
        self.trainable = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.epoch = self.step = self.steps = 0  # of the run; in the epoch; of all epochs watched
        self.begun = self.ended = self.same = self.compared = 0  # epochs watched; samples followed
        self.batch: dict[str, Tensor] | None = {}
        self.orders: dict[int, list[np.ndarray]] = {1: [], 2: []}
        self.followed: dict[int, Tensor] = {}  # sample -> sums of its inputs to the model
        self.arrived: dict[Tensor, int] = {}  # parameter -> the last step in which a gradient arrived
        self.in_amp = False  # whether any layer has computed in the type of --amp
        self.freezing = any(value for name, value in self.flags.items() if name.startswith("freeze_"))
        self.freezing |= any(getattr(part, "frozen", False) for part in self.model.modules())
        self.augmented = any(self.flags.get(name) for name in ("augment", "rotation", "jitter"))
        self.weights_before: np.ndarray | None = fingerprints(self.trainable.values())
        self.judged_before = fingerprints(self.judged.parameters())
        self.graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"] if self.flags["compile"] else 0
        self.check_begin()
        checkpoint.interrupt.look = self.look
        self.hooks = self.add_hooks(criterion)

    # Before the first step

    def check_begin(self) -> None:
        """The optimizer holds all trainable weights, loaded weights are in place, and no group is in both
        the train loader and another."""
        held = {id(p) for g in self.checkpoint.parts["optimizer"].param_groups for p in g["params"]}
        if names := [name for name, p in self.trainable.items() if id(p) not in held]:
            what = f"{len(names)} of {len(self.trainable)} trainable tensors ({names[0]} ...)"
            self.warn("optimizer", f"the optimizer does not hold {what}: build it of model.parameters()")
        encoders = [part for part in self.model.modules() if hasattr(part, "loaded")]
        loaded = [part for part in encoders if part.loaded is not None]
        asked = "none" if self.flags["resume"] else self.flags.get("weights", "none")
        if asked != "none" and encoders and not loaded:
            self.warn("weights", f"--weights {asked} was asked for, but nothing was loaded")
        for part in loaded:
            # On the CPU, as when they were loaded: a GPU sums in another order.
            if not np.array_equal(fingerprints(p.detach().cpu() for p in part.parameters()), part.loaded):
                self.warn("weights", "the loaded weights are gone: initialised or overwritten after loading")
        groups = {name: set(loader.dataset.group_names()) for name, loader in self.loaders.items()}
        for name in groups.keys() - {"train"}:
            if shared := sorted(groups["train"] & groups[name]):
                what = f"{len(shared)} of {len(groups[name])} groups of {name} are trained on"
                self.warn("leak", f"{what} ({shared[0]} ...): the loaders do not follow the split")

    # While it runs

    def look(self, epoch: int, step: int, batch: dict[str, Tensor]) -> None:
        """Check the batch that the loader hands to a training step."""
        self.begun += epoch != self.epoch
        self.epoch, self.step, self.steps, self.batch = epoch, step, self.steps + 1, batch
        promised = len(self.loaders["train"].batch_sampler.part(step)[0])
        for name in ("indices", self.target):
            if len(batch[name]) != promised:
                self.warn("short", f"a step was promised {promised} samples and got {len(batch[name])}")
        if self.begun in self.orders:
            # A copy, since a worker's tensor holds a file open.
            self.orders[self.begun].append(batch["indices"].numpy().copy())
        if self.begun == 1 and step == 1:
            self.check_ranks("after the first step")
        if self.begun > 1 or step >= LOOKED_AT:
            return
        for name in self.inputs:
            values = batch[name].flatten(1).float().nan_to_num()
            if len(values) > 1 and float(values.std(0).max()) < 1e-6:
                self.warn(f"alike {name}", f"all samples of a batch have the same {name}: a constant input")

    def in_step(self) -> bool:
        return self.checkpoint.interrupt.place is not None

    def looking(self) -> bool:
        return self.begun <= 2 and self.step < LOOKED_AT and self.in_step()

    def add_hooks(self, criterion: nn.Module) -> list[Any]:
        """Register the checks below as hooks, and return those to remove after the second epoch.
        A model compiled with --compile is only checked from outside."""
        outside = torch.compiler.disable if self.flags["compile"] else lambda hook: hook
        self.model.register_forward_pre_hook(outside(self.before_forward), with_kwargs=True)
        self.judged.register_forward_hook(outside(self.after_evaluation), with_kwargs=True)
        criterion.register_forward_hook(self.check_loss)
        fresh = [p.register_hook(partial(self.check_fresh, p)) for p in self.trainable.values()]
        if self.flags["compile"]:
            return fresh
        parts = {part: name for model in (self.model, self.judged) for name, part in model.named_modules()}
        leaves = [part for part in parts if next(part.children(), None) is None]
        hooks = [part.register_forward_hook(partial(self.check_part, parts[part])) for part in leaves]
        encoders = [p for p in self.model.modules() if hasattr(p, "features") and hasattr(p, "mean")]
        hooks += [p.features.register_forward_pre_hook(self.check_normalised) for p in encoders]
        return hooks + fresh

    def before_forward(self, model: nn.Module, inputs: tuple, options: dict[str, Any]) -> None:
        """Check the model's inputs, and whether samples of the first epoch look different in the second."""
        if not self.in_step() or self.begun > 2:
            return
        named = inputs[0]
        if not isinstance(named, dict):
            tensors = [value for value in (*inputs, *options.values()) if isinstance(value, Tensor)]
            named = dict(zip(("images", "points"), tensors, strict=False))
        given = {name: named[name] for name in self.inputs}
        if self.looking():
            for name, values in given.items():
                if bool(self.batch[name].any()) and not bool(values.any()):
                    self.warn(f"lost {name}", f"{name} arrive at the model as zeros: lost on the way")
        part = any(len(values) < len(self.batch[name]) for name, values in given.items())  # of the batch
        if part or not self.augmented or (self.begun == 1 and self.step >= FOLLOWED):
            return
        for row, index in enumerate(self.batch["indices"].tolist()):
            if self.begun == 2 and index not in self.followed:
                continue
            rows = {"crops": self.batch["left"][row]} if "left" in self.batch else {}
            now = torch.stack([values[rows.get(k, row)].double().nansum() for k, values in given.items()])
            if self.begun == 1:
                self.followed[index] = now.detach()
            else:
                self.same += torch.equal(self.followed.pop(index), now)
                self.compared += 1

    def check_part(self, name: str, part: nn.Module, inputs: tuple, output: Any) -> None:
        """In steps: train mode, and trainable unless a flag freezes; on val: eval mode."""
        if not self.in_step() and self.begun and part.training:
            self.warn("eval", f"{name} is in train mode while val is scored: model.eval() is missing")
        if not self.looking():
            return
        if not part.training and not self.freezing:
            self.warn("mode", f"{name} is not in train mode in a training step: model.train() is missing")
        own = [p.requires_grad for p in part.parameters(recurse=False)]
        if own and not any(own) and not self.freezing:
            self.warn("frozen", f"{name} does not learn, although no flag freezes anything")
        self.in_amp |= getattr(output, "dtype", None) == amp_dtype(self.run.device)

    def check_normalised(self, part: nn.Module, inputs: tuple) -> None:
        """Images are normalised exactly once: some values are below 0, mean and sd are not above 4."""
        if not self.looking():
            return
        values = inputs[0].detach().float()
        mean, sd, least = float(values.mean()), float(values.std()), float(values.min())
        if least >= 0 or abs(mean) > 4 or sd > 4:
            what = f"images enter the first layer with mean {mean:.2f}, sd {sd:.2f}, least value {least:.2f}"
            self.warn("normalisation", f"{what}: normalised twice or never")

    def check_fresh(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        """No gradient of an earlier step is left when the first one of a step arrives."""
        first = self.arrived.get(parameter) != self.steps
        self.arrived[parameter] = self.steps
        if first and self.looking() and parameter.grad is not None and bool(parameter.grad.any()):
            what = f"gradients of an earlier backward pass are still there in step {self.step + 1}"
            self.warn("gradients", f"{what}: optimizer.zero_grad() is missing")

    def check_loss(self, criterion: nn.Module, inputs: tuple, losses: Tensor) -> None:
        """The criterion gets outputs and labels that belong together."""
        if not self.looking():
            return
        outputs, labels = inputs[:2]
        if len(outputs) != len(labels) or (outputs.ndim != labels.ndim and labels.is_floating_point()):
            shapes = f"{tuple(outputs.shape)} and {tuple(labels.shape)}"
            self.warn("shapes", f"outputs and labels have shapes {shapes}: the loss compares all with all")
        sent = self.batch[self.target]
        if labels.shape == sent.shape and not torch.equal(labels.cpu(), sent):
            self.warn("labels", "labels at the loss are not those that were read: lost, or of other samples")
        if losses.requires_grad:
            losses.register_hook(self.check_sign)

    def check_sign(self, gradient: Tensor) -> None:
        if bool((gradient < 0).any()):
            self.warn("sign", "the loss is maximised: backward() sees it with a minus sign")

    def after_evaluation(self, model: nn.Module, inputs: tuple, options: dict[str, Any], output: Any) -> None:
        """Once, on a val batch: the same inputs give the same output, mixed-up inputs another."""
        if self.in_step() or self.ended or not self.begun or self.batch is None:
            return
        self.batch = None  # checks only one batch
        with torch.no_grad():
            first, again = (first_output(o) for o in (output, model(*inputs, **options)))
            if not torch.allclose(first, again, rtol=1e-3, atol=1e-5, equal_nan=True):
                return self.warn("random", "a val batch gives two outputs: something random is on")
            for name in self.inputs:
                mixed = rolled(inputs, name)
                if mixed is not None and torch.equal(again, first_output(model(*mixed, **options))):
                    self.warn(f"ignored {name}", f"the model ignores {name}: mixing them up changes nothing")

    # After an epoch

    def after_epoch(self, rows: dict[str, np.ndarray]) -> None:
        """Check the epoch; rows: the result of evaluating val."""
        history, self.ended = self.checkpoint.history, self.ended + 1
        if self.ended == 2:  # these hooks only check the first steps
            for hook in self.hooks:
                hook.remove()
            self.check_orders()
        self.check_ranks(f"after epoch {len(history)}")
        self.check_judged(rows)
        self.check_history(history)
        if self.flags["amp"] and not self.flags["compile"] and not self.in_amp:
            wanted = amp_dtype(self.run.device)
            self.warn("amp", f"--amp: no layer computes in {wanted}: no autocast in a step")
        if self.flags["compile"]:
            self.check_compiled()
        if self.steps >= ENOUGH and self.weights_before is not None:
            self.check_moved(self.weights_before)
            self.weights_before = None

    def check_ranks(self, when: str) -> None:
        if self.run.processes.world_size == 1:
            return
        first, *others = gather(fingerprints(self.model.parameters()))
        if any(not np.array_equal(first, other) for other in others):
            what = f"the processes have different weights {when}"
            self.warn("ranks", f"{what}: the model is called without its wrapper, or a step differs")

    def check_judged(self, rows: dict[str, np.ndarray]) -> None:
        """What is evaluated as val is val: all of it, with its own labels."""
        val = self.loaders["val"].dataset
        labels = getattr(val, self.target)
        if len(rows["indices"]) != len(val) or not np.array_equal(rows[self.target], labels[rows["indices"]]):
            self.warn("judged", "the figures called val are not of val: another part was evaluated")

    def check_history(self, history: list[dict[str, Any]]) -> None:
        """The epoch kept is the first of the best; one scheduler step per epoch; the rate nears its peak."""
        task = TASKS[self.run.script]
        best, name = best_row(history, task), task["best"]
        kept = self.checkpoint.best[task["checkpoint"].removeprefix("best_").removesuffix(".pth")]["epoch"]
        if best and best["epoch"] != kept:
            other = f"epoch {best['epoch']} has {name} {best[f'val_{name}']:.4g}"
            self.warn("best", f"epoch {kept} is kept as the best one, but {other}")
        scheduler, peak = self.checkpoint.parts["scheduler"], self.flags["learning_rate"]
        if scheduler.last_epoch != len(history) and not hasattr(scheduler, "total_steps"):  # OneCycleLR
            stepped = f"the scheduler was stepped {scheduler.last_epoch} times in {len(history)} epochs"
            self.warn("schedule", stepped)
        warmup = max(self.flags.get("warmup_epochs", 0), 1)
        if len(history) > warmup and max(row["lr"] for row in history) < 0.5 * peak:
            self.warn("schedule", f"the rate never came near --learning_rate {peak:g}: an endless warm-up")

    def check_compiled(self) -> None:
        """Steps run compiled code, and after two epochs nothing is compiled again."""
        before, self.graphs = self.graphs, torch._dynamo.utils.counters["stats"]["unique_graphs"]
        if self.ended == 1 and self.graphs == before:
            self.warn("compile", "--compile: no step ran the compiled code")
        if self.ended > 2 and self.graphs > before:
            what = "compiled again after the second epoch"
            self.warn("recompiled", f"{what}: shapes that change cost minutes; leave --compile out")

    def check_moved(self, before: np.ndarray) -> None:
        """Every trainable tensor has changed, and averaged weights follow."""
        after = fingerprints(self.trainable.values())
        same = (after == before).all(axis=1)
        if still := [name for name, stood in zip(self.trainable, same, strict=True) if stood]:
            self.warn("still", f"{len(still)} trainable tensors ({still[0]} ...) did not change in an epoch")
        known = before[:, 1] > 0
        moved = np.abs(after - before).max(axis=1)[known] / before[known, 1]
        change = float(np.median(moved)) if len(moved) else 0.0  # a bias near 0 easily moves far
        if change < UNMOVED:
            self.warn("still", f"the weights hardly moved in an epoch ({change:.1e}): learning rate too low")
        if self.judged is self.model:
            return
        judged = fingerprints(self.judged.parameters())
        if np.array_equal(judged, self.judged_before):
            self.warn("average", "the averaged weights did not move: they are never updated")
        elif np.array_equal(judged, fingerprints(self.model.parameters())):
            self.warn("average", "the averaged weights equal the trained ones: nothing is averaged")

    def check_orders(self) -> None:
        """Order and augmentation differ between the first two epochs."""
        first, second = (np.concatenate([[], *self.orders[k]]) for k in (1, 2))  # empty if resumed late
        frames = self.loaders["train"].batch_sampler.frames
        if len(first) and len(np.unique(frames)) >= 8 and np.array_equal(first, second):
            self.warn("order", "samples come in the same order every epoch: the sampler ignores the epoch")
        if self.compared >= 16 and self.same == self.compared:
            self.warn("augmentation", "augmentation is on, but samples look the same in every epoch")
        self.orders, self.followed = {}, {}


def first_output(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
