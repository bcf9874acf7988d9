"""What is true of every training loop that works, watched while it runs: mistakes of the loop, not the data.

Each invariant stands for a fault that people really made and did not notice (docs/reliability.md has the
records). Most are looked at in the first two steps and the first two epochs, through hooks, so that a script
calls nothing for them; what costs a GPU's attention is never asked for in every step.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.run.log import LOG
from utils.tasks import TASKS
from utils.training.device import amp_dtype

if TYPE_CHECKING:
    from utils.training.checkpoint import Checkpoint

LOOKED_AT = 2  # steps of the first epoch whose tensors are looked at
FOLLOWED = 4  # steps of the first epoch whose samples are looked for in the second
ENOUGH = 5  # steps after which every weight has moved: where a layer begins with zeros, the first moves none
UNMOVED = 3e-5  # relative change of the weights in an epoch that counts as none


def fingerprints(tensors: Iterable[Tensor]) -> np.ndarray:
    """(K, 2) doubles, cheap and equal for equal tensors: a sum weighted by place, one of absolute values.

    Without the weights a step that moves two biases against each other would not show.
    """
    sums = []
    for tensor in tensors:
        flat = tensor.detach().double().flatten()
        place = torch.linspace(1, 2, len(flat), dtype=torch.float64, device=flat.device)
        sums.append(torch.stack([flat @ place, flat.abs().sum()]))
    return torch.stack(sums).cpu().numpy() if sums else np.zeros((0, 2))


class Invariants:
    """Watches one run from before its first step and says, once each, what can not be; `found` {kind: text}.

    inputs: the keys of a batch that the model is meant to use; target: that of the labels.
    """

    def __init__(
        self, checkpoint: "Checkpoint", loaders: dict[str, Any], inputs: tuple[str, ...], target: str
    ):
        self.checkpoint, self.run, self.loaders = checkpoint, checkpoint.run, loaders
        self.inputs, self.target = inputs, target
        self.judged = checkpoint.parts["model"]
        self.model = checkpoint.parts.get("trained", self.judged)
        self.optimizer = checkpoint.parts["optimizer"]
        self.found: dict[str, str] = {}
        self.epoch, self.step, self.batch = 0, 0, {}
        self.steps = 0  # in all epochs
        self.begun = self.epochs_seen = 0
        self.orders: dict[int, list[np.ndarray]] = {}
        self.followed: dict[int, Tensor] = {}  # sample -> fingerprint of what the model was given
        self.same, self.compared = 0, 0
        self.flags = vars(self.run.args)
        freezes = [value for name, value in self.flags.items() if name.startswith("freeze_")]
        self.freezing = any(freezes) or self.flags.get("location_weight") == 0
        self.augmented = bool(
            self.flags.get("augment") or self.flags.get("rotation") or self.flags.get("jitter")
        )
        self.weights_before = fingerprints(self.trainable())
        self.judged_before = fingerprints(self.judged.parameters())
        self.hooks: list[Any] = []
        self.check_optimizer()
        self.check_weights_kept()
        self.check_groups()
        checkpoint.interrupt.look = self.look
        self.add_hooks()

    def trainable(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def say(self, kind: str, text: str) -> None:
        """Log a warning at once, each kind once."""
        if kind not in self.found:
            self.found[kind] = text
            LOG.warning(text)

    # Before the first step

    def check_optimizer(self) -> None:
        """The optimizer holds the tensors of this model, all that are to learn."""
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        names = [name for name, p in self.model.named_parameters() if p.requires_grad and id(p) not in held]
        if names:
            self.say(
                "optimizer",
                f"the optimizer does not hold {len(names)} of {len(self.trainable())} trainable tensors "
                f"({names[0]} ...): it was given a part of the model, or the model's tensors of before .to()",
            )

    def check_weights_kept(self) -> None:
        """Weights that --weights loaded are those that training starts from."""
        encoders = [m for m in self.model.modules() if hasattr(m, "loaded")]
        loaded = [m for m in encoders if m.loaded is not None]
        if self.flags.get("weights", "none") != "none" and encoders and not loaded:
            self.say("weights", f"--weights {self.flags['weights']} was asked for, but nothing was loaded")
        if self.run.args.resume:
            return
        for encoder in loaded:
            if not np.array_equal(fingerprints(encoder.parameters()), encoder.loaded):
                self.say(
                    "weights", "the loaded weights are gone: they were drawn or written again after loading"
                )

    def check_groups(self) -> None:
        """No sequence, scenario or subject is served to training and to evaluation."""
        kinds = [
            name for name in ("groups", "scenario", "subject_ids") if hasattr(self.served("train"), name)
        ]
        if not kinds:
            return
        groups = {name: set(self.group_names(name, kinds[0])) for name in self.loaders}
        for name in groups.keys() - {"train"}:
            if shared := groups["train"] & groups[name]:
                self.say(
                    "leak",
                    f"{len(shared)} of {len(groups[name])} groups of {name} are trained on "
                    f"({sorted(shared)[0]} ...): the loaders serve something else than the split says",
                )

    def served(self, split: str) -> Any:
        return self.loaders[split].dataset

    def group_names(self, split: str, kind: str) -> list[str]:
        dataset = self.served(split)
        if kind == "scenario":
            return dataset.names().tolist()
        if kind == "subject_ids":
            return [dataset.subjects[k] for k in np.unique(dataset.subject_ids)]
        return [f"{dataset.sequences[k]}" for k in np.unique(dataset.groups)]

    # While it runs

    def look(self, epoch: int, step: int, batch: dict[str, Tensor]) -> None:
        """What the loader hands to a training step."""
        if epoch != self.epoch:
            self.epoch, self.begun = epoch, self.begun + 1
        self.step, self.batch, self.steps = step, batch, self.steps + 1
        indices = batch["indices"].numpy()
        promised = len(self.loaders["train"].batch_sampler.part(step)[0])
        short = [name for name in ("indices", self.target) if len(batch[name]) != promised]
        if short:
            self.say("short", f"a step was promised {promised} samples and got {len(batch[short[0]])}")
        if self.begun <= 2:
            self.orders.setdefault(self.begun, []).append(indices)
        if self.begun == 1 and step < LOOKED_AT:
            self.check_variety(batch)
        if self.begun == 1 and step == 1:
            self.check_ranks("after the first step")

    def check_variety(self, batch: dict[str, Tensor]) -> None:
        """The samples of a batch differ from each other, in everything the model is given."""
        for name in self.inputs:
            values = batch[name].flatten(1).float()
            if len(values) > 1 and bool(values.isfinite().all()) and float(values.std(0).max()) < 1e-6:
                self.say(
                    f"alike {name}", f"all samples of a batch have the same {name}: constant or lost input"
                )

    def in_step(self) -> bool:
        return self.checkpoint.interrupt.watch.place is not None

    def looking(self) -> bool:
        """Whether the step at hand is one of the first, whose tensors are looked at."""
        return self.begun <= 2 and self.step < LOOKED_AT and self.in_step()

    def add_hooks(self) -> None:
        self.model.register_forward_pre_hook(self.before_forward, with_kwargs=True)
        self.judged.register_forward_hook(self.after_evaluation, with_kwargs=True)
        for name, part in self.model.named_modules():
            if next(part.children(), None) is None:
                self.hooks.append(part.register_forward_hook(self.watch_part(name)))
            if hasattr(part, "features") and hasattr(part, "mean"):
                self.hooks.append(part.features.register_forward_pre_hook(self.check_normalised))
        if self.judged is not self.model:
            for name, part in self.judged.named_modules():
                if next(part.children(), None) is None:
                    self.hooks.append(part.register_forward_hook(self.watch_part(name)))
        for parameter in self.trainable():
            self.hooks.append(parameter.register_hook(self.check_gradient_is_fresh(parameter)))

    def before_forward(self, model: nn.Module, inputs: tuple, options: dict[str, Any]) -> None:
        if not self.in_step() or self.begun > 2:
            return
        given = self.by_name(inputs, options)
        if self.looking():
            for name, values in given.items():
                if bool(self.batch[name].any()) and not bool(values.any()):
                    self.say(
                        f"lost {name}", f"{name} arrive at the model as zeros: lost on the way to the device"
                    )
        self.follow(given)

    def by_name(self, inputs: tuple, options: dict[str, Any]) -> dict[str, Tensor]:
        """What the model was given, under the names of the batch."""
        if inputs and isinstance(inputs[0], dict):
            return {name: inputs[0][name] for name in self.inputs}
        tensors = [value for value in (*inputs, *options.values()) if isinstance(value, Tensor)]
        given = dict(zip(("images", "points"), tensors, strict=False))
        return {name: given[name] for name in self.inputs}

    def follow(self, given: dict[str, Tensor]) -> None:
        """Remember what some samples looked like in the first epoch, and compare in the second."""
        if not self.augmented or (self.begun == 1 and self.step >= FOLLOWED):
            return
        for row, index in enumerate(self.batch["indices"].tolist()):
            if self.begun == 2 and index not in self.followed:
                continue
            rows = [
                values[self.batch["left"][row] if name == "crops" else row].double().nansum()
                for name, values in given.items()
            ]
            now = torch.stack(rows).detach()
            if self.begun == 1:
                self.followed[index] = now
            else:
                self.same += torch.equal(self.followed.pop(index), now)
                self.compared += 1

    def watch_part(self, name: str) -> Callable[..., None]:
        """A part that computes in a step is in train mode, learns unless frozen, in the type asked for."""

        def hook(part: nn.Module, inputs: tuple, output: Any) -> None:
            if not self.in_step():
                self.check_evaluates(name, part)
                return
            if not self.looking():
                return
            parameters = list(part.parameters(recurse=False))
            kept = self.freezing or getattr(self.model, "trunk_frozen", False)
            if not part.training and not kept:
                self.say("mode", f"{name} is not in train mode in a training step: model.train() is missing")
            if parameters and not any(p.requires_grad for p in parameters) and not kept:
                self.say("frozen", f"{name} does not learn, although no flag freezes anything")
            if self.flags["amp"] and isinstance(part, (nn.Linear, nn.Conv2d)):
                wanted = amp_dtype(self.run.device)
                if isinstance(output, Tensor) and output.dtype != wanted:
                    self.say(
                        "amp",
                        f"--amp: {name} computes in {output.dtype}, not {wanted}: no autocast around it",
                    )

        return hook

    def check_evaluates(self, name: str, part: nn.Module) -> None:
        if part.training and self.begun:
            self.say("evaluation", f"{name} is in train mode while val is scored: model.eval() is missing")

    def check_normalised(self, part: nn.Module, inputs: tuple) -> None:
        """Images are normalised once: some values below 0, none far outside."""
        if not self.looking():
            return
        values = inputs[0].detach().float()
        mean, sd, least = (float(f(values)) for f in (torch.mean, torch.std, torch.min))
        if least >= 0 or abs(mean) > 4 or sd > 4:
            self.say(
                "normalisation",
                f"images enter the first layer with mean {mean:.2f}, sd {sd:.2f}, least value {least:.2f}: "
                "normalised twice or never",
            )

    def check_gradient_is_fresh(self, parameter: nn.Parameter) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            if not self.looking() or "gradients" in self.found:
                return
            if parameter.grad is not None and bool(parameter.grad.any()):
                self.say(
                    "gradients",
                    f"gradients of an earlier backward pass are still there in step {self.step + 1}: "
                    "optimizer.zero_grad() is missing",
                )

        return hook

    def watch_loss(self, criterion: nn.Module) -> None:
        """See what the criterion is given and how its result enters backward(), in the first steps."""

        def hook(part: nn.Module, inputs: tuple, losses: Tensor) -> None:
            if not self.looking():
                return
            outputs, labels = inputs[:2]
            if len(outputs) != len(labels) or (outputs.ndim != labels.ndim and labels.is_floating_point()):
                shapes = f"{tuple(outputs.shape)} and {tuple(labels.shape)}"
                self.say(
                    "shapes", f"outputs and labels have the shapes {shapes}: the loss compares all with all"
                )
            sent = self.batch[self.target]
            if labels.shape == sent.shape and not torch.equal(labels.cpu(), sent):
                self.say(
                    "labels", "the labels at the loss are not those that were read: lost, or of other samples"
                )
            if losses.requires_grad:
                losses.register_hook(check_sign)

        def check_sign(gradient: Tensor) -> None:
            if bool((gradient < 0).any()):
                self.say("sign", "the loss is maximised: backward() sees it with a minus sign")

        if isinstance(criterion, nn.Module):
            criterion.register_forward_hook(hook)

    def after_evaluation(self, model: nn.Module, inputs: tuple, options: dict[str, Any], output: Any) -> None:
        """Once, on the first val batch after the first epoch: the same batch gives the same output, and
        another one with each input mixed up."""
        if self.in_step() or self.epochs_seen or not self.begun or self.batch is None:
            return
        self.batch = None  # this forward pass calls no other look
        with torch.no_grad():
            first, again = (first_output(o) for o in (output, model(*inputs, **options)))
            close = torch.allclose(first, again, rtol=1e-3, atol=1e-5, equal_nan=True)
            if not close:
                self.say(
                    "random",
                    "the same val batch gives two outputs: something random is on while val is scored",
                )
            for name in self.inputs:
                mixed, rolled = mix(inputs, name, self.inputs)
                if mixed is None or not close:
                    continue
                if torch.equal(first, first_output(model(*mixed, **options))) and rolled:
                    self.say(
                        f"ignored {name}", f"the model ignores {name}: its outputs are the same without them"
                    )

    # After an epoch

    def after_epoch(self, rows: dict[str, np.ndarray]) -> None:
        """rows: what val's evaluation gave."""
        history, self.epochs_seen = self.checkpoint.history, self.epochs_seen + 1
        if self.epochs_seen == 2:  # parts and parameters are looked at in the first steps only
            for hook in self.hooks:
                hook.remove()
        self.check_ranks(f"after epoch {len(history)}")
        self.check_judged(rows)
        self.check_best(history)
        self.check_schedule(history)
        if self.steps >= ENOUGH and self.weights_before is not None:
            self.check_moved()
            self.weights_before = None
        if self.epochs_seen == 2:
            self.check_orders()

    def check_ranks(self, when: str) -> None:
        if not dist.is_initialized():
            return
        mine = fingerprints(self.model.parameters())
        every: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(every, mine)
        if any(not np.array_equal(every[0], other) for other in every[1:]):
            self.say(
                "ranks",
                f"the processes have different weights {when}: the model is called without its wrapper, or a "
                "step differs between them",
            )

    def check_judged(self, rows: dict[str, np.ndarray]) -> None:
        """What is called val is val: all of it, with its labels."""
        val = self.loaders["val"].dataset
        labels = getattr(val, self.target)
        if len(rows["indices"]) != len(val) or not np.array_equal(rows[self.target], labels[rows["indices"]]):
            self.say(
                "judged", "the figures of val are not those of the val split: another part was evaluated"
            )

    def check_best(self, history: list[dict[str, Any]]) -> None:
        task = TASKS[self.run.script]
        metric = task["metrics"][task["best"]]
        values = [row.get(f"val_{task['best']}") for row in history]
        known = [(value, -k) for k, value in enumerate(values) if value is not None and np.isfinite(value)]
        if not known:
            return
        value, k = max(known) if metric.higher else min(known, key=lambda pair: (pair[0], -pair[1]))
        kept = self.checkpoint.best[task["checkpoint"].removeprefix("best_").removesuffix(".pth")]["epoch"]
        if kept != 1 - k:
            what = f"{task['best']} {value:.4g}"
            self.say("best", f"epoch {kept} is kept as the best one, but epoch {1 - k} has {what}")

    def check_schedule(self, history: list[dict[str, Any]]) -> None:
        steps = self.checkpoint.parts["scheduler"].last_epoch
        if steps != len(history):
            self.say(
                "schedule",
                f"the scheduler was stepped {steps} times in {len(history)} epochs: missing, or twice",
            )
        warmup, peak = self.flags.get("warmup_epochs", 0), self.flags["learning_rate"]
        if len(history) > max(warmup, 1) and max(row["lr"] for row in history) < 0.5 * peak:
            self.say(
                "schedule",
                f"the learning rate never came near --learning_rate {peak:g}: the warm-up does not end",
            )

    def check_moved(self) -> None:
        """Every trainable tensor has changed in the first epoch, and averaged weights follow."""
        after, before = fingerprints(self.trainable()), self.weights_before
        still = [
            name
            for (name, _), a, b in zip(self.named_trainable(), after, before, strict=True)
            if np.array_equal(a, b)
        ]
        if still:
            self.say(
                "still",
                f"{len(still)} of {len(after)} trainable tensors did not change in an epoch ({still[0]} ...)",
            )
        sums = before[:, 1] > 0
        change = np.max(np.abs(after - before).max(axis=1)[sums] / before[sums, 1], initial=0.0)
        if change < UNMOVED:
            self.say(
                "still",
                f"the weights hardly moved in an epoch (by {change:.1e}): the learning rate is too low",
            )
        if self.judged is not self.model:
            if np.array_equal(fingerprints(self.judged.parameters()), self.judged_before):
                self.say("average", "the averaged weights did not move: they are never updated")
            elif np.array_equal(
                fingerprints(self.judged.parameters()), fingerprints(self.model.parameters())
            ):
                self.say("average", "the averaged weights are the live ones: nothing is averaged")

    def named_trainable(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    def check_orders(self) -> None:
        first, second = (np.concatenate(self.orders[k]) for k in (1, 2))
        frames = self.loaders["train"].batch_sampler.frames
        if len(np.unique(frames)) >= 8 and np.array_equal(first, second):
            self.say(
                "order", "the samples come in the same order every epoch: the sampler is not told the epoch"
            )
        if self.compared >= 16 and self.same == self.compared:
            self.say("augmentation", "augmentation is on, but samples look the same in every epoch")
        self.orders, self.followed = {}, {}


def first_output(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def mix(inputs: tuple, name: str, names: tuple[str, ...]) -> tuple[tuple | None, bool]:
    """The inputs of a model with the rows of one of them moved on by one, and whether that changed them."""
    if inputs and isinstance(inputs[0], dict):
        old = inputs[0][name]
        new = old.roll(1, 0)
        return (inputs[0] | {name: new}, *inputs[1:]), not torch.equal(old, new)
    if name not in ("images", "points"):
        return None, False
    place = 0 if name == "images" or (len(names) == 1 and len(inputs) == 1) else 1
    old = inputs[place]
    mixed = list(inputs)
    mixed[place] = old.roll(1, 0)
    if name == "points":  # with which of them are real, and the pixels they fall on
        mixed[2:] = [value.roll(1, 0) for value in mixed[2:]]
    return tuple(mixed), not torch.equal(old, mixed[place])
