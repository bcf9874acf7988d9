"""Does the model learn? Checks before and during training; utils/metrics/verdict.py judges at the end.

Each finding is a sentence with its likely cause, logged as a warning. The checks know nothing of the task: a
criterion here maps (outputs, labels) to one loss per sample.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from utils.run.errors import CommandError, DataError, NonFiniteError
from utils.run.log import LOG
from utils.run.signs import above_constant, kind_of, overfitting
from utils.tasks import TASKS
from utils.training.checkpoint import Checkpoint
from utils.training.device import move
from utils.training.invariants import ENOUGH, Invariants
from utils.training.worth import MixedUp

Criterion = Callable[[Tensor, Tensor], Tensor]
Forward = Callable[[nn.Module, dict[str, Tensor]], Tensor]  # (model, batch) -> outputs
UNMOVED = 1e-3  # a smaller relative change of the train loss over three epochs counts as none
TRIAL_STEPS = 300  # of --overfit_one_batch
BY_HEART = 0.3  # of the best constant's loss; below that a batch counts as learned by heart


def check_labels(labels: np.ndarray, split: str, names: Sequence[str] | None = None) -> None:
    """DataError with counts unless there are labels, all finite and of more than one value."""
    if len(labels) == 0:
        raise DataError(f"the {split} split is empty\nlook at the counts above and at split.json")
    if bad := np.sum(~np.isfinite(labels)):
        raise DataError(f"the {split} split has {bad} labels that are NaN or infinite")
    if (labels == labels[0]).all():
        kind, value = ("class", names[int(labels[0])]) if names else ("age", f"{labels[0]:g}")
        raise DataError(
            f"the {split} split has one {kind} only: {len(labels)} samples, all '{value}'\n"
            "nothing can be learned or measured on it; choose another split: --split_method, --fold, --seed"
        )


def check_last_batch(loader: DataLoader, model: nn.Module, run: Any, forward: Forward) -> None:
    """CommandError if the last batch gives a process a single sample, which BatchNorm cannot learn from."""
    sampler, limit = loader.batch_sampler, run.args.max_batches
    world, count = sampler.world_size, len(sampler.frames)

    def fewest(batch_size: int) -> int:
        return (count % (batch_size * world) or batch_size * world) // world

    if fewest(sampler.batch_size) > 1 or 0 < limit < sampler.steps:
        return
    batch = move(loader.dataset.__getitems__([0]), run.device)
    with torch.no_grad(), torch.random.fork_rng([run.device] if run.device.type == "cuda" else []):
        try:
            forward(copy.deepcopy(model).train(), batch)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            near = [size for size in range(sampler.batch_size, 1, -1) if fewest(size) > 1]
            raise CommandError(
                f"--batch_size {sampler.batch_size}: with {count} train samples, a process gets a single one "
                f"in the last batch of an epoch, from which BatchNorm cannot learn: {error}\n"
                f"pass --batch_size {near[0] if near else 2 * sampler.batch_size} or a larger --image_size"
            ) from error


def best_constant_loss(criterion: Criterion, labels: Tensor, outputs: int, start: float = 0.0) -> float:
    """The smallest mean loss that a constant output reaches on `labels`, found by LBFGS in double precision.
    For cross-entropy that is the label entropy, for MSE the variance; class weights and focal terms count."""
    constant = torch.full((outputs,), start, dtype=torch.float64, requires_grad=True)
    how = {"max_iter": 100, "tolerance_grad": 1e-10, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS([constant], **how)
    labels = labels.double() if labels.is_floating_point() else labels

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = constant.expand(len(labels), outputs) if outputs > 1 else constant.expand(len(labels))
        loss = criterion(logits, labels).mean()
        if loss.requires_grad:
            loss.backward()
        return loss.detach()

    optimizer.step(closure)
    return float(closure())


def check_finite(
    loss: Tensor, grad_norm: Tensor, scaler: torch.amp.GradScaler, where: str, samples: Tensor
) -> None:
    """NonFiniteError before the optimizer step if loss or gradient norm is NaN or infinite (one GPU sync).
    With a float16 scaler only the loss counts: an infinite gradient is an overflow, which the scaler skips.
    """
    judged = loss.detach() if scaler.is_enabled() else loss.detach() + grad_norm
    if not torch.isfinite(judged):
        raise NonFiniteError(
            f"{where}: loss {float(loss.detach()):.4g}, gradient norm {float(grad_norm):.4g}\n"
            f"samples of the batch: {', '.join(map(str, samples.tolist()[:16]))}\n"
            "the weights are still those of the step before; lower --learning_rate or look at these samples"
        )


class LearningCheck:
    """Watches one run and warns, once for each kind, of signs that it does not learn.
    drawn: positions of the train samples that an epoch takes, if it does not take all of them."""

    def __init__(
        self, script: str, criterion: Criterion, labels: np.ndarray, val_labels: np.ndarray, outputs: int,
        drawn: np.ndarray | slice = slice(None),
    ):  # fmt: skip
        self.watched, self.task, self.outputs = criterion, TASKS[script], outputs
        if isinstance(criterion, nn.Module):  # its class weights are of the model's device and type
            criterion = copy.deepcopy(criterion).cpu().double()
        self.criterion = criterion
        self.labels = torch.as_tensor(labels)
        # What a constant output reaches; val has other class shares than the samples drawn for training.
        self.constant_loss = best_constant_loss(criterion, self.labels[drawn], outputs)
        self.val_constant = best_constant_loss(criterion, torch.as_tensor(val_labels), outputs)
        self.warned: dict[str, str] = {}

    def warn(self, kind: str, text: str) -> None:
        """Log a warning at once, each kind once."""
        if kind not in self.warned:
            self.warned[kind] = text
            LOG.warning(text)

    def before_training(
        self, checkpoint: Checkpoint, loaders: dict[str, DataLoader], inputs: Sequence[str],
        forward: Forward = lambda model, batch: model(batch), target: str = "labels",
    ) -> None:  # fmt: skip
        """Log warnings about labels, loss and loop; with --overfit_one_batch test the model too.
        loaders: by split, with train; inputs, target: the keys of the inputs and the labels in a batch."""
        run, dataset = checkpoint.run, loaders["train"].dataset
        if run.args.overfit_one_batch:
            model = checkpoint.parts.get("trained", checkpoint.parts["model"])
            self.overfit_one_batch(model, dataset, run.device, forward)
        check_last_batch(loaders["train"], checkpoint.parts["model"], run, forward)
        run.status.write(constant_loss=self.val_constant)
        self.invariants = Invariants(self.warn, checkpoint, self.watched, loaders, inputs, target)
        found = [f"the learning check got {len(self.labels)} labels, but train has {len(dataset)} samples"]
        if len(dataset) == len(self.labels):
            found = self.check_loss(lambda chosen: dataset.__getitems__(chosen)[target])
        for text in found:
            self.warn(text, text)

    def check_loss(self, read_labels: Callable[[list[int]], Tensor]) -> list[str]:
        """What is wrong with the labels that `read_labels(indices)` reads, and with the loss.

        The loss of fixed outputs must change with the labels. Certain and right outputs must cost next to
        nothing compared with the best constant. If they do not, more certain ones are tried: with label
        smoothing they cost much more, but with one softmax too many they cost the same."""
        chosen = list(range(0, len(self.labels), max(1, len(self.labels) // 256)))
        labels, found = self.labels[chosen], []
        if not torch.equal(read_labels(chosen), read_labels(chosen)):
            found.append("labels of the same samples differ between two reads: they are made up, not read")
        shape = (len(labels), self.outputs) if self.outputs > 1 else (len(labels),)
        logits = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        constant = [torch.full_like(labels, value.item()) for value in torch.unique(labels)]
        losses = [self.criterion(logits, same).mean() for same in constant]
        if len(losses) > 1 and all(torch.equal(losses[0], loss) for loss in losses[1:]):
            found.append("the loss does not depend on the labels: it can fall to 0 while nothing is learned")
        if labels.is_floating_point():
            right, certain = labels.double(), 1.0
        else:
            classes = nn.functional.one_hot(labels, self.outputs) if self.outputs > 1 else 2 * labels - 1
            right, certain = 30 * classes.double(), 10.0
        loss, surer = (float(self.criterion(factor * right, labels).mean()) for factor in (1.0, certain))
        if loss > 0.05 * self.constant_loss and surer <= 2 * loss:
            what = f"certain and right outputs still cost {loss:.4g}, a constant {self.constant_loss:.4g}"
            found.append(f"{what}: softmax or sigmoid applied twice, or a loss that is not the intended one")
        return found

    def overfit_one_batch(
        self, model: nn.Module, dataset: Dataset, device: torch.device, forward: Forward
    ) -> None:
        """Log whether a copy of the model can learn one balanced train batch by heart: Adam (lr 1e-3) has
        TRIAL_STEPS steps to get below BY_HEART. The run's own model and random numbers stay as they are."""
        chosen = balanced_batch(self.labels)
        labels, batch = self.labels[chosen], move(dataset.__getitems__(chosen), device)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            trial = copy.deepcopy(model).train()
            optimizer = torch.optim.Adam(trial.parameters(), lr=1e-3)
            constant = best_constant_loss(self.criterion, labels, self.outputs, float(labels.double().mean()))
            for step in range(TRIAL_STEPS + 1):
                loss = self.criterion(forward(trial, batch).cpu().double(), labels).mean()
                if (learned := loss.item() < BY_HEART * constant) or step == TRIAL_STEPS:
                    break
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        outcome = f"loss {loss.item():.4g} after {step} steps, a constant reaches {constant:.4g}"
        why = "are all inputs alike, is a part dead, detached or frozen, or does the loss not fit?"
        if learned:
            LOG.info(f"one batch of {len(chosen)} can be learned by heart: {outcome}")
        else:
            LOG.warning(f"one batch of {len(chosen)} cannot be learned by heart: {outcome}; {why}")

    def input_worth(self, measure: Callable, metrics: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """{figure: the metric of the verdict, all: its value, without: {input: its value with that one mixed
        up}} on test (val if there is no test). measure(loader) gives what `metrics` holds of each split."""
        split, metric = "test" if "test" in metrics else "val", self.task["judged_by"]
        loader, inputs = self.invariants.loaders[split], self.invariants.inputs
        if "geometry" in inputs and len(getattr(loader.dataset, "past_columns", ())):
            inputs = [*inputs, "history"]
        without = {key: measure(MixedUp(loader, key))[metric] for key in inputs}
        return {"figure": metric, "all": metrics[split][metric], "without": without}

    def after_epoch(self, rows: dict[str, np.ndarray], outputs: np.ndarray) -> None:
        """Log new warnings; rows: the result of evaluating val; outputs (N, ...): those of the model."""
        self.invariants.after_epoch(rows)
        constant, history = self.constant_loss, self.invariants.checkpoint.history
        peak = int(np.argmax([row["lr"] for row in history]))  # before it, a warm-up may stand still
        losses = [row["train_loss"] for row in history[peak:]]
        last, on_val = losses[-1], history[0].get("val_loss", constant)
        # An epoch that learns fast has a low loss on train and on val.
        if len(history) == 1 and (last > 5 * constant or last < 0.2 * constant < 0.8 * on_val):
            what = f"the first epoch's loss {last:.4g} is far from the best constant's {constant:.4g}"
            self.warn("first", f"{what}: the outputs start far off, or the loss is not the intended one")
        if np.ptp(outputs, axis=0).max() < 1e-6:
            self.warn("constant", "every sample of val gets the same output: a dead or frozen model")
        if not self.labels.is_floating_point() and are_probabilities(outputs):
            self.warn("probabilities", "outputs are probabilities: the loss applies softmax or sigmoid again")
        moved = self.invariants.steps >= ENOUGH
        if moved and (still := unused_parameters(self.invariants.model)):
            self.warn("gradient", f"no gradient reaches {still}: a detached or dead part of the model")
        if len(losses) >= 3 and np.ptp(losses[-3:]) <= UNMOVED * abs(last):
            self.warn("flat", f"flat: the train loss stays at {last:.4g}; learning rate 0 or far too low")
        if len(losses) >= 3 and min(losses[-3:]) >= 0.98 * constant:
            what = f"the train loss stays at {last:.4g}, a constant output reaches {constant:.4g}"
            self.warn("entropy", f"{what}: do the labels belong to their inputs?")
        for text in (above_constant(history, self.val_constant), overfitting(history, self.task)):
            if text:
                self.warn(kind_of(text), text)


def balanced_batch(labels: Tensor, size: int = 32) -> list[int]:
    """About `size` positions: equally many of every class, or targets spread from lowest to highest."""
    groups = [torch.argsort(labels)]
    if not labels.is_floating_point():
        groups = [torch.nonzero(labels == value)[:, 0] for value in torch.unique(labels)]
    share = size // len(groups)
    spread = [group[torch.linspace(0, len(group) - 1, share).long()] for group in groups]
    return torch.unique(torch.cat(spread)).tolist()


def are_probabilities(outputs: np.ndarray) -> bool:
    """Whether rows (N, K) sum to 1, or outputs (N,) fill [0, 1] without leaving it; logits do neither."""
    if outputs.ndim == 2:
        return bool(outputs.min() >= 0 and np.allclose(outputs.sum(axis=1), 1, atol=1e-3))
    return bool(outputs.min() >= 0 and outputs.max() <= 1 and np.ptp(outputs) > 0.9)


def unused_parameters(model: nn.Module) -> str:
    """The top-level parts of the model in which no trainable parameter has a gradient other than zero; '' if
    the loop clears them after its steps."""
    trainable = [(name.split(".")[0], p.grad) for name, p in model.named_parameters() if p.requires_grad]
    alive = {part for part, gradient in trainable if gradient is not None and bool(gradient.any())}
    cleared = all(gradient is None for _, gradient in trainable)
    return "" if cleared else ", ".join(dict.fromkeys(part for part, _ in trainable if part not in alive))
