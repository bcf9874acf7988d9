"""Checkpoints: plain values and tensors, written completely or not at all, loaded with weights_only=True."""

import io
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from utils.run.arguments import MAY_CHANGE_ON_RESUME, MAY_MOVE
from utils.run.errors import CommandError
from utils.run.folder import plain, write_bytes, write_json
from utils.run.log import LOG, run_goes_on
from utils.tasks import TASKS
from utils.training.config import check_recipe
from utils.training.interrupt import Interrupt

if TYPE_CHECKING:
    from utils.training.run import Run

FORMAT_VERSION = 2
OTHER_CODE = "use it with the commit that config.json beside it names, or train again"
PLACES = MAY_MOVE | {"output_dir", "stage1_checkpoint", "weights"}


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write `state` (see Checkpoint.state) and format_version: a crash leaves the old file or the new one."""
    buffer = io.BytesIO()
    torch.save({"format_version": FORMAT_VERSION, **state}, buffer)
    try:
        write_bytes(path, buffer.getbuffer())
    except CommandError as error:
        remedy = f"nothing was saved yet, so begin again with --config {Path(path).parent}"
        if (Path(path).parent / "last.pth").exists():
            remedy = "the checkpoint before it is complete: go on with --resume"
        raise CommandError(f"{error}\n{remedy}") from error


class Checkpoint:
    """What a run saves and restores: named parts, the history, and plain values beside the weights.

    parts: objects with state_dict and load_state_dict. Every file holds the part `model`, which is judged;
    the others, for resuming, are only in last.pth (and final.pth, its copy). best: {name: value to beat},
    each with a file best_NAME.pth. names: lists of names, such as class_names, that a loaded file must agree
    with. The attribute `values` is saved with the weights, such as the threshold that belongs to them."""

    def __init__(
        self, run: "Run", best: Mapping[str, float], names: dict[str, list[str]] | None = None, **parts: Any
    ):
        self.run, self.parts, self.names = run, parts, names or {}
        self.history: list[dict[str, Any]] = []
        self.best = {name: {"value": worst, "epoch": 0} for name, worst in best.items()}
        self.values: dict[str, Any] = {"threshold": None}
        self.interrupt = Interrupt(run, self.save_last)
        self.chosen: dict[str, Any] = {}  # the state that the test pass judges; set by load_best

    def resume(self, criterion: nn.Module) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
        """The history and best values to continue from: those in last.pth with --resume, else fresh ones.
        CommandError if the code now has another recipe than the run had."""
        if self.run.args.resume:
            check_recipe(self.run, criterion, self.parts["optimizer"], self.parts["scheduler"])
            state, best = self.load("last.pth"), TASKS[self.run.script]["checkpoint"]
            if state["epoch"] and not (self.run.folder / best).is_file():
                what = f"{self.run.folder / best} is missing, which the end of the run needs"
                raise CommandError(f"{what}\ncopy it here, or start a new run with --config")
            refuse_foreign(self.run.folder / "last.pth", state, vars(self.run.args), self.run.trained_on)
            for name, part in self.parts.items():
                if state[name]:  # the scaler's is empty unless --amp means float16
                    load_into(part, state[name], self.run.folder / "last.pth")
            # Changes nothing without gradients; a scheduler that comes next would miss a step before it.
            self.parts["optimizer"].step()
            self.history, self.best = state["history"], state["best"]
            self.values = {key: state[key] for key in state["values"]}
            self.interrupt.resume(state)
        return self.history, self.best

    def load(self, name: str) -> dict[str, Any]:
        path = self.run.folder / name
        return self.run.processes.from_first(lambda: load_checkpoint(path, self.run.script, **self.names))

    def state(self, step: int = 0, totals: torch.Tensor | None = None, seconds: float = 0) -> dict[str, Any]:
        """What every file holds. Of an unfinished epoch: the `step` steps done, the `totals` they have added
        up to (a row per process), and the `seconds` they took. best: {metric: {value, epoch}}."""
        return {
            "script": self.run.script, "epoch": len(self.history), "step": step, "totals": totals,
            "seconds": seconds, "model": self.parts["model"].state_dict(), "best": self.best,
            "history": self.history, "args": vars(self.run.args), "trained_on": self.run.trained_on,
            "values": list(self.values), **self.values, **self.names,
        }  # fmt: skip

    def save_last(self, *done: Any) -> None:
        """Write last.pth: the state and what only resuming needs; done: an unfinished epoch, see `state`."""
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        save_checkpoint(self.run.folder / "last.pth", self.state(*done) | parts)

    def save_epoch(self, improved: Sequence[str], **values: Any) -> None:
        """After an epoch, rank 0 writes best_NAME.pth for each name in `improved`, checkpoint_epoch_N.pth
        every --save_interval epochs, history.json and last.pth. `values` are kept from now on."""
        self.values |= values
        if not self.run.processes.first:
            return
        folder, interval, epoch = self.run.folder, self.run.args.save_interval, len(self.history)
        for name in ("results.json", "evaluation_report.txt"):  # of a finished run that goes on
            (folder / name).unlink(missing_ok=True)
        state = self.state()
        for name in improved:
            save_checkpoint(folder / f"best_{name}.pth", state)
        if interval and epoch % interval == 0:
            save_checkpoint(folder / f"checkpoint_epoch_{epoch}.pth", state)
        try:
            write_json(folder / "history.json", self.history)
        except CommandError as error:
            run_goes_on("history.json", error)
        self.save_last()

    def load_best(self, name: str) -> dict[str, Any]:
        """After training: load the weights of best_NAME.pth into the model and return its state."""
        self.interrupt.end()
        self.chosen = self.load(f"best_{name}.pth")
        LOG.info(f"test pass, with the weights of best_{name}.pth, epoch {self.chosen['epoch']}")
        self.parts["model"].load_state_dict(self.chosen["model"])
        return self.chosen


def refuse_foreign(
    path: Path, state: Mapping[str, Any], args: dict[str, Any], trained_on: Mapping[str, Any]
) -> None:
    """CommandError if the checkpoint `path` was trained with other flags, data or split than its folder says.
    Paths may differ, since data is compared by content, and so may a process's share of the batch."""
    now, before = plain(args), plain(state["args"])
    fixed = sorted(now.keys() & before.keys() - MAY_CHANGE_ON_RESUME - PLACES - {"batch_size"})
    changed = [f"  --{k}: trained with {before[k]}, now {now[k]}" for k in fixed if now[k] != before[k]]
    changed += [f"  trained on another {k}" for k, v in trained_on.items() if state["trained_on"][k] != v]
    if changed:
        refused = f"{path} is not of the run that config.json and split.json beside it describe"
        remedy = "one was edited or copied here: restore it, or start a new run with --config"
        raise CommandError("\n".join([refused, *changed, remedy]))


def refuse_unfinished(path: Path, state: Mapping[str, Any]) -> None:
    """CommandError if the checkpoint was saved within an epoch: its values, such as the threshold, belong to
    the weights at the end of the epoch before, if there was one."""
    if state.get("step") or state["epoch"] == 0:
        what = f"{path} was saved in the middle of epoch {state['epoch'] + 1}: it has no threshold of its own"
        raise CommandError(f"{what}\ngo on with its run: python {state['script']} --resume {path.parent}")


def load_checkpoint(path: str | Path, script: str | None = None, **expected: list[str]) -> dict[str, Any]:
    """Load a checkpoint on the CPU. `script`: the script it must come from; `expected`: lists of names it
    must agree with, such as class_names: weights are meaningless under other names.

    Raises CommandError for a file that is missing, damaged, of another format, of another script, or that
    holds anything but tensors and plain values (nothing in it is ever imported or called)."""
    path = Path(path)
    if not path.is_file():
        raise CommandError(f"no checkpoint at {path}")
    state = read_torch(path, "use a checkpoint written by this project")
    if not isinstance(state, dict) or "format_version" not in state:
        raise CommandError(f"{path} is not a checkpoint of this project (no format_version)")
    if (version := state["format_version"]) != FORMAT_VERSION:
        raise CommandError(f"{path} has format {version}, this code reads {FORMAT_VERSION}: {OTHER_CODE}")
    if script is not None and state["script"] != script:
        raise CommandError(f"{path} was written by {state['script']}, not by {script}")
    check_names(path, state, **expected)
    return state


def load_into(part: Any, state: dict[str, Any], path: str | Path) -> None:
    """Restore a part, such as the model; CommandError if the state in `path` is of another."""
    try:
        part.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        what = f"{path}: its weights do not fit the model of its flags and of this code: {reason}"
        raise CommandError(f"{what}\n{OTHER_CODE}") from error


def read_torch(path: Path, trusted: str) -> Any:
    """What torch.save wrote, on the CPU, loaded with weights_only=True: no code in the file is ever run.
    CommandError if it is damaged or holds more than tensors and plain values; for that, `trusted` advises."""
    try:
        with open(path, "rb") as file:
            begin = file.read(24)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if broken := archive.testzip():  # torch would load damaged weights silently
                    raise ValueError(f"the checksum of {broken} is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the reader raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        remedy = "Copy it again (a Git LFS pointer: git lfs pull), or give a file that torch.save wrote."
        if "pip install" in reason:
            remedy = "Or give a file that torch.save wrote."
        elif not begin.startswith((b"PK", b"\x80\x02\x8a\n")):  # torch's format now and before 1.6
            reason = f"it begins with {begin!r}"
        elif isinstance(error, pickle.UnpicklingError) or "TorchScript" in reason:
            code = re.search(r"GLOBAL (\S+)", str(error))
            more = f"more than tensors and plain values{f', such as {code[1]}' if code else ''}"
            raise CommandError(f"{path} holds {more}\n{trusted}") from error
        raise CommandError(f"{path} is damaged or torch.save did not write it: {reason}\n{remedy}") from error


def check_names(path: Path, state: dict[str, Any], **expected: list[str]) -> None:
    for key, names in expected.items():
        if state.get(key) != names:
            changed = sorted(set(state.get(key) or []) ^ set(names)) or "the same names in another order"
            what = f"{path} was trained with other {key} than this code and data have: {changed}"
            raise CommandError(f"{what}\n{OTHER_CODE}")
