"""What is true of every training loop that works, watched while it runs: mistakes of the loop, not the data.

Each invariant stands for a fault that people really made and did not notice (docs/reliability.md). Most are
looked at in the first two steps of the first two epochs, through hooks, so that a script calls nothing.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.run.signs import best_row
from utils.tasks import TASKS
from utils.training.checkpoint import Checkpoint
from utils.training.device import amp_dtype
from utils.training.weights import fingerprints
from utils.training.worth import rolled

LOOKED_AT = 2  # steps at the start of the first two epochs whose tensors are looked at
FOLLOWED = 4  # steps of the first epoch whose samples are looked for in the second
ENOUGH = 5  # steps after which every weight has moved: where a layer begins with zeros, the first moves none
UNMOVED = 3e-5  # relative change of the weights in an epoch that counts as none


class Invariants:
    """Watches one run from before its first step; `say(kind, text)` what can not be, each kind once.
    inputs: the keys of a batch that the model is meant to use; target: that of the labels."""

    def __init__(
        self, say: Callable[[str, str], None], checkpoint: Checkpoint, criterion: nn.Module,
        loaders: dict[str, Any], inputs: Sequence[str], target: str,
    ):  # fmt: skip
        self.say, self.checkpoint, self.run, self.loaders = say, checkpoint, checkpoint.run, loaders
        self.inputs, self.target, self.flags = inputs, target, vars(checkpoint.run.args)
        self.judged = checkpoint.parts["model"]
        self.model = checkpoint.parts.get("trained", self.judged)
        self.trainable = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.epoch = self.step = self.steps = 0  # of the run, of the epoch, of all epochs watched
        self.begun = self.ended = self.same = self.compared = 0  # epochs watched; samples followed
        self.batch: dict[str, Tensor] | None = {}
        self.orders: dict[int, list[np.ndarray]] = {1: [], 2: []}
        self.followed: dict[int, Tensor] = {}  # sample -> fingerprint of what the model was given
        self.freezing = any(value for name, value in self.flags.items() if name.startswith("freeze_"))
        self.augmented = any(self.flags.get(name) for name in ("augment", "rotation", "jitter"))
        self.weights_before: np.ndarray | None = fingerprints(self.trainable.values())
        self.judged_before = fingerprints(self.judged.parameters())
        self.graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"] if self.flags["compile"] else 0
        self.check_begin()
        checkpoint.interrupt.look = self.look
        self.hooks = self.add_hooks(criterion)

    # Before the first step

    def check_begin(self) -> None:
        """The optimizer holds what is to learn, loaded weights are there, and nobody is served to training
        and to evaluation."""
        held = {id(p) for g in self.checkpoint.parts["optimizer"].param_groups for p in g["params"]}
        if names := [name for name, p in self.trainable.items() if id(p) not in held]:
            what = f"{len(names)} of {len(self.trainable)} trainable tensors ({names[0]} ...)"
            self.say("optimizer", f"the optimizer does not hold {what}: build it of model.parameters()")
        encoders = [part for part in self.model.modules() if hasattr(part, "loaded")]
        loaded = [part for part in encoders if part.loaded is not None]
        if self.flags.get("weights", "none") != "none" and encoders and not loaded:
            self.say("weights", f"--weights {self.flags['weights']} was asked for, but nothing was loaded")
        kept = [np.array_equal(fingerprints(part.parameters()), part.loaded) for part in loaded]
        if not all(kept) and not self.flags["resume"]:
            self.say("weights", "the loaded weights are gone: drawn or written again after loading")
        groups = {name: set(loader.dataset.group_names()) for name, loader in self.loaders.items()}
        for name in groups.keys() - {"train"}:
            if shared := sorted(groups["train"] & groups[name]):
                what = f"{len(shared)} of {len(groups[name])} groups of {name} are trained on"
                self.say("leak", f"{what} ({shared[0]} ...): the loaders do not serve the split")

    # While it runs

    def look(self, epoch: int, step: int, batch: dict[str, Tensor]) -> None:
        """What the loader hands to a training step."""
        self.begun += epoch != self.epoch
        self.epoch, self.step, self.steps, self.batch = epoch, step, self.steps + 1, batch
        promised = len(self.loaders["train"].batch_sampler.part(step)[0])
        for name in ("indices", self.target):
            if len(batch[name]) != promised:
                self.say("short", f"a step was promised {promised} samples and got {len(batch[name])}")
        if self.begun in self.orders:
            self.orders[self.begun].append(batch["indices"].numpy())
        if self.begun == 1 and step == 1:
            self.check_ranks("after the first step")
        for name in self.inputs if self.begun == 1 and step < LOOKED_AT else ():  # samples differ
            values = batch[name][:promised].flatten(1).float().nan_to_num()  # behind them: not judged
            if len(values) > 1 and float(values.std(0).max()) < 1e-6:
                self.say(f"alike {name}", f"all samples of a batch have the same {name}: a constant input")

    def in_step(self) -> bool:
        return self.checkpoint.interrupt.place is not None

    def looking(self) -> bool:
        return self.begun <= 2 and self.step < LOOKED_AT and self.in_step()

    def add_hooks(self, criterion: nn.Module) -> list[Any]:
        """Put the looks below where they see; those returned go after the second epoch.
        What --compile makes one piece is looked at from outside."""
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
        """What the model is given, and whether some samples of the first epoch look other in the second."""
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
                    self.say(f"lost {name}", f"{name} arrive at the model as zeros: lost on the way")
        followed = self.augmented and (self.begun == 2 or self.step < FOLLOWED)
        for row, index in enumerate(self.batch["indices"].tolist() if followed else ()):
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
        """A part that computes in a step is in train mode, learns unless frozen, in the type asked for."""
        if not self.in_step() and self.begun and part.training:
            self.say("eval", f"{name} is in train mode while val is scored: model.eval() is missing")
        if not self.looking():
            return
        if not part.training and not self.freezing:
            self.say("mode", f"{name} is not in train mode in a training step: model.train() is missing")
        own = [p.requires_grad for p in part.parameters(recurse=False)]
        if own and not any(own) and not self.freezing:
            self.say("frozen", f"{name} does not learn, although no flag freezes anything")
        wanted = amp_dtype(self.run.device)
        if self.flags["amp"] and isinstance(part, (nn.Linear, nn.Conv2d)) and output.dtype != wanted:
            self.say("amp", f"--amp: {name} computes in {output.dtype}, not {wanted}: no autocast there")

    def check_normalised(self, part: nn.Module, inputs: tuple) -> None:
        """Images are normalised once: some values below 0, none far outside."""
        if not self.looking():
            return
        values = inputs[0].detach().float()
        mean, sd, least = float(values.mean()), float(values.std()), float(values.min())
        if least >= 0 or abs(mean) > 4 or sd > 4:
            what = f"images enter the first layer with mean {mean:.2f}, sd {sd:.2f}, least value {least:.2f}"
            self.say("normalisation", f"{what}: normalised twice or never")

    def check_fresh(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        """No gradient of an earlier backward pass is there when the next one arrives."""
        if self.looking() and parameter.grad is not None and bool(parameter.grad.any()):
            what = f"gradients of an earlier backward pass are still there in step {self.step + 1}"
            self.say("gradients", f"{what}: optimizer.zero_grad() is missing")

    def check_loss(self, criterion: nn.Module, inputs: tuple, losses: Tensor) -> None:
        """The criterion is given outputs and labels that belong together."""
        if not self.looking():
            return
        outputs, labels = inputs[:2]
        if len(outputs) != len(labels) or (outputs.ndim != labels.ndim and labels.is_floating_point()):
            shapes = f"{tuple(outputs.shape)} and {tuple(labels.shape)}"
            self.say("shapes", f"outputs and labels are {shapes}: the loss compares all with all")
        sent = self.batch[self.target]
        if labels.shape == sent.shape and not torch.equal(labels.cpu(), sent):
            self.say("labels", "labels at the loss are not those that were read: lost, or of other samples")
        if losses.requires_grad:
            losses.register_hook(self.check_sign)

    def check_sign(self, gradient: Tensor) -> None:
        if bool((gradient < 0).any()):
            self.say("sign", "the loss is maximised: backward() sees it with a minus sign")

    def after_evaluation(self, model: nn.Module, inputs: tuple, options: dict[str, Any], output: Any) -> None:
        """Once, on a val batch: it gives the same output again, and another one with an input mixed up."""
        if self.in_step() or self.ended or not self.begun or self.batch is None:
            return
        self.batch = None  # this forward pass is not looked at again
        with torch.no_grad():
            first, again = (first_output(o) for o in (output, model(*inputs, **options)))
            if not torch.allclose(first, again, rtol=1e-3, atol=1e-5, equal_nan=True):
                return self.say("random", "a val batch gives two outputs: something random is on")
            for name in self.inputs:
                mixed = rolled(inputs, name)
                if mixed is not None and torch.equal(again, first_output(model(*mixed, **options))):
                    self.say(f"ignored {name}", f"the model ignores {name}: the same outputs without them")

    # After an epoch

    def after_epoch(self, rows: dict[str, np.ndarray]) -> None:
        """rows: what val's evaluation gave."""
        history, self.ended = self.checkpoint.history, self.ended + 1
        if self.ended == 2:  # parts and parameters are looked at in the first steps only
            for hook in self.hooks:
                hook.remove()
            self.check_orders()
        self.check_ranks(f"after epoch {len(history)}")
        self.check_judged(rows)
        self.check_history(history)
        if self.flags["compile"]:
            self.check_compiled()
        if self.steps >= ENOUGH and self.weights_before is not None:
            self.check_moved(self.weights_before)
            self.weights_before = None

    def check_ranks(self, when: str) -> None:
        if not dist.is_initialized():
            return
        every: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(every, fingerprints(self.model.parameters()))
        if any(not np.array_equal(every[0], other) for other in every[1:]):
            what = f"the processes have different weights {when}"
            self.say("ranks", f"{what}: the model is called without its wrapper, or a step differs")

    def check_judged(self, rows: dict[str, np.ndarray]) -> None:
        """What is called val is val: all of it, with its labels."""
        val = self.loaders["val"].dataset
        labels = getattr(val, self.target)
        if len(rows["indices"]) != len(val) or not np.array_equal(rows[self.target], labels[rows["indices"]]):
            self.say("judged", "the figures of val are not those of val: another part was evaluated")

    def check_history(self, history: list[dict[str, Any]]) -> None:
        """The epoch kept is the one with the best figure, the first of equals; the schedule was followed."""
        task = TASKS[self.run.script]
        best, name = best_row(history, task), task["best"]
        kept = self.checkpoint.best[task["checkpoint"].removeprefix("best_").removesuffix(".pth")]["epoch"]
        if best and best["epoch"] != kept:
            other = f"epoch {best['epoch']} has {name} {best[f'val_{name}']:.4g}"
            self.say("best", f"epoch {kept} is kept as the best one, but {other}")
        steps, peak = self.checkpoint.parts["scheduler"].last_epoch, self.flags["learning_rate"]
        if steps != len(history):
            self.say("schedule", f"the scheduler was stepped {steps} times in {len(history)} epochs")
        warmup = max(self.flags.get("warmup_epochs", 0), 1)
        if len(history) > warmup and max(row["lr"] for row in history) < 0.5 * peak:
            self.say("schedule", f"the rate never came near --learning_rate {peak:g}: an endless warm-up")

    def check_compiled(self) -> None:
        """Steps run what --compile made, and after two epochs nothing new is compiled."""
        before, self.graphs = self.graphs, torch._dynamo.utils.counters["stats"]["unique_graphs"]
        if self.ended == 1 and self.graphs == before:
            self.say("compile", "--compile: no step ran what was compiled")
        if self.ended > 2 and self.graphs > before:
            what = "compiled again after the second epoch"
            self.say("recompiled", f"{what}: shapes that change cost minutes; leave --compile out")

    def check_moved(self, before: np.ndarray) -> None:
        """Every trainable tensor has changed, and averaged weights follow."""
        after = fingerprints(self.trainable.values())
        same = (after == before).all(axis=1)
        still = [name for name, stood in zip(self.trainable, same, strict=True) if stood]
        if still:
            self.say("still", f"{len(still)} trainable tensors ({still[0]} ...) did not change in an epoch")
        known = before[:, 1] > 0
        moved = np.abs(after - before).max(axis=1)[known] / before[known, 1]
        change = float(np.median(moved)) if len(moved) else 0.0  # a bias near 0 moves far by next to nothing
        if change < UNMOVED:
            self.say("still", f"the weights hardly moved in an epoch ({change:.1e}): too low a learning rate")
        if self.judged is self.model:
            return
        judged = fingerprints(self.judged.parameters())
        if np.array_equal(judged, self.judged_before):
            self.say("average", "the averaged weights did not move: they are never updated")
        elif np.array_equal(judged, fingerprints(self.model.parameters())):
            self.say("average", "the averaged weights are the live ones: nothing is averaged")

    def check_orders(self) -> None:
        """Order and augmentation of the second epoch are not those of the first."""
        first, second = (np.concatenate([[], *self.orders[k]]) for k in (1, 2))  # resumed: maybe no step
        frames = self.loaders["train"].batch_sampler.frames
        if len(first) and len(np.unique(frames)) >= 8 and np.array_equal(first, second):
            self.say("order", "samples come in the same order every epoch: the sampler is not told the epoch")
        if self.compared >= 16 and self.same == self.compared:
            self.say("augmentation", "augmentation is on, but samples look the same in every epoch")
        self.orders, self.followed = {}, {}


def first_output(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
