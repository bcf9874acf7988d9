"""config.json: everything that defines a run, read from the run's own objects, never typed in by hand."""

import argparse
import hashlib
import json
import platform
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from utils.run.arguments import DATA_PATHS, MAY_CHANGE_ON_RESUME, MAY_MOVE, NOT_RECORDED
from utils.run.errors import CommandError
from utils.run.folder import REPO_ROOT, plain, read_json, read_record, write_json
from utils.run.log import LOG, align
from utils.tasks import recipe_of
from utils.training.distributed import gather

if TYPE_CHECKING:
    from utils.training.run import Run

TRAINING = (
    "batch_size", "learning_rate", "weight_decay", "epochs", "patience", "warmup_epochs", "max_grad_norm",
    "num_workers", "plot_interval", "max_batches",
)  # fmt: skip

# For --resume.
NEEDED = ("args", "dataset", "training", "optimizations", "world_size", "num_threads", "device")


def describe_run(run: "Run") -> dict[str, Any]:
    """The head: code, time, command, flags, machine, threads and seed."""
    cuda, world = run.device.type == "cuda", run.processes.world_size
    gpus = range(torch.cuda.device_count() if cuda else 0)
    return {
        "script_name": run.script, "script_version": run.version, "description": run.doc.splitlines()[0],
        "timestamp": datetime.now().isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
        "args": vars(run.args), "class_map": class_map_of(run.args), "git": describe_git(),
        "device": str(run.device), "world_size": world, "use_ddp": world > 1,
        "gpu_names": list(map(torch.cuda.get_device_name, gpus)),
        "cuda_version": torch.version.cuda if cuda else None, "pytorch_version": str(torch.__version__),
        "num_threads": torch.get_num_threads(), "seed": run.args.seed,
    }  # fmt: skip


def class_map_of(args: argparse.Namespace) -> Any:
    """The contents of --class_map, which are recorded because the file may change; None without it."""
    path = getattr(args, "class_map", None)
    return read_json(path) if path else None


def check_resumed(run: "Run", dataset: dict[str, Any], split: dict[str, list[str]]) -> None:
    """CommandError unless a resumed run has the same data, split and global batch: it would be another run.
    With another number of processes args.batch_size becomes each one's share of the batch."""
    args, world = run.args, run.processes.world_size
    recorded = read_record(Path(args.resume) / "config.json", *NEEDED)
    batch, before = recorded["args"]["batch_size"], recorded["world_size"]
    old, new = recorded["dataset"]["fingerprint"], dataset["fingerprint"]
    changed = [f"  fingerprint of the data: recorded {old}, now {new}"] if old != new else []
    if read_json(path := Path(args.resume) / "split.json") != split:
        changed.append(f"  split: recorded in {path}, now another (put the data's own split.json back)")
    if recorded.get("class_map") != class_map_of(args):
        changed.append(f"  --class_map {args.class_map}: other contents than in config.json")
    if batch * before % world:
        changed.append(f"  {batch * before} samples a step ({batch} on {before}) cannot be split by {world}")
    if changed:
        refused = f"--resume {args.resume} cannot go on: it would not be the same run"
        raise CommandError("\n".join([refused, *changed, "start a new run with --config"]))
    if world != before:
        args.batch_size = batch * before // world
        LOG.warning(
            f"{world} process(es) with {args.batch_size} samples a step each, {before} with {batch} before: "
            "the same run within rounding only without dropout, random depth and trained BatchNorm"
        )
    described = describe_run(run)
    if (begun := recorded.get("git", described["git"])) != described["git"]:
        LOG.warning(f"the run began with the code {begun}, as config.json says; now it is {described['git']}")
    before, now = deciding(recorded), deciding(described)
    for name in ("threads", "device"):
        if before[name] != now[name]:
            LOG.info(f"{name}: {before[name]} before, now {now[name]}: last bits may differ")


def deciding(config: dict[str, Any]) -> dict[str, Any]:
    """What a config.json, or a part of one, says of what decides the numbers besides the flags."""
    return {
        "data": config.get("dataset", {}).get("fingerprint"), "split": config.get("split"),
        "processes": config.get("world_size"), "threads": config.get("num_threads"),
        "device": config.get("device", "").split(":")[0], "PyTorch": config.get("pytorch_version"),
        "first weights": config.get("model", {}).get("sha256"),
        "loss, optimizer and schedule": recipe_of(config),
    }  # fmt: skip


def check_recipe(run: "Run", *recipe: Any) -> None:
    """CommandError if the code has another loss, optimizer or schedule than the run that is resumed."""
    path = run.folder / "config.json"
    before = recipe_of(read_json(path))
    now = recipe_of(plain({"training": describe_training(run, *recipe)}))
    if changed := [f"  {k}: recorded {v}, now {now[k]}" for k, v in before.items() if now.get(k, v) != v]:
        refused = f"--resume {run.args.resume} cannot go on: the code has changed since {path}"
        remedy = "restore the recipe, or start a new run with --config"
        raise CommandError("\n".join([refused, *changed, remedy]))


def check_repeated(path: Path, part: dict[str, Any]) -> None:
    """Log whether this part of config.json, and "split", repeat the run of --config, as far as recorded."""
    config, file = read_json(path), path.with_name("split.json")
    before = deciding(config | {"split": read_json(file) if file.is_file() else None})
    known = {name: value for name, value in deciding(part).items() if value and before[name]}
    if changed := [name for name, value in known.items() if before[name] != value]:
        LOG.warning(f"not the {' and '.join(changed)} of --config {path}: this run does not repeat that one")
    elif known:
        LOG.info(f"{', '.join(known)}: the same as of --config {path}")


def check_ranks(run: "Run", dataset: dict[str, Any], split: dict[str, list[str]]) -> None:
    """CommandError, on every rank, with a table of the data, split, steps, flags and versions that differ."""
    free = {"cache_dir", "cache_limit_gb", "device", "num_workers", *DATA_PATHS}
    facts = {
        "data": dataset["fingerprint"][:12],
        "split": hashlib.sha256(json.dumps(split).encode()).hexdigest()[:12],
        "steps per epoch": -(-dataset["train_samples"] // (run.args.batch_size * run.processes.world_size)),
        **{f"--{key}": value for key, value in vars(run.args).items() if key not in free},
        "commit": describe_git()["commit"],
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy")},
    }
    every = gather(facts)
    names = sorted({name for rank in every for name in rank if rank[name] != every[0].get(name)})
    if names:
        rows = [[f"rank {k}", *(str(rank.get(name)) for name in names)] for k, rank in enumerate(every)]
        table = align([["", *names], *rows])
        raise CommandError("\n".join(["the ranks differ and would not train one model:", *table]))


def record_resumed(run: "Run") -> None:
    """Write the flags that --resume may change to config.json, where --resume and --config will look."""
    args, recorded = run.args, read_json(run.folder / "config.json")
    changeable = MAY_CHANGE_ON_RESUME - NOT_RECORDED | MAY_MOVE
    now = {key: value for key, value in vars(args).items() if key in changeable}
    recorded["args"] |= now
    recorded["dataset"] = run.described  # the same data, which may have moved
    recorded["training"] |= {key: now[key] for key in now.keys() & recorded["training"].keys()}
    recorded["optimizations"]["early_stopping"] = args.patience > 0
    write_json(run.folder / "config.json", recorded)


def describe_git() -> dict[str, Any]:
    """The commit of the code and whether it has uncommitted changes; nulls outside a git checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=REPO_ROOT, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    commit, _, dirty = done.stdout.strip().partition("-")
    return {"commit": commit, "dirty": bool(dirty)}


def describe_model(
    model: nn.Module, task: str, weights: dict[str, Any], output_dim: int, **fields: Any
) -> dict[str, Any]:
    """The model section; `weights` says whether pretrained weights were loaded, and from where."""
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = any(getattr(part, "frozen", False) for part in model.modules())  # models/encoders.py: freeze
    head = {"architecture": type(model).__name__, "task": task, **weights, "output_dim": output_dim}
    head |= {"total_parameters": total, "trainable_parameters": trainable, "frozen_encoder": frozen}
    return head | fields


def describe_training(
    run: "Run", criterion: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any, **fields: Any
) -> dict[str, Any]:
    """The training section: settings of loss, optimizer and scheduler, and the run-level flags."""

    def plain_values(settings: dict[str, Any]) -> dict[str, Any]:
        kinds = (bool, int, float, str, list, tuple, type(None))
        known = {key: value for key, value in settings.items() if isinstance(value, kinds) and key[0] != "_"}
        return {key: known[key] for key in known if key not in ("last_epoch", "base_lrs", "training")}

    scheduler_params: dict[str, Any] = {}
    for part in parts_of(scheduler):
        scheduler_params |= plain_values(part.state_dict())
    if hasattr(scheduler, "_milestones"):
        scheduler_params["warmup_epochs"] = scheduler._milestones[0] + 1
    return {
        "loss_function": type(criterion).__name__, "loss_params": plain_values(vars(criterion)),
        "loss_weights": {name: weights.tolist() for name, weights in criterion.named_buffers()},
        "optimizer": type(optimizer).__name__, "optimizer_params": plain_values(optimizer.defaults),
        "lr_scheduler": type(scheduler).__name__, "scheduler_params": scheduler_params,
        "effective_batch_size": run.args.batch_size * run.processes.world_size,
        **{flag: getattr(run.args, flag, 0) for flag in TRAINING}, **fields,
    }  # fmt: skip


def parts_of(scheduler: Any) -> list[Any]:
    """The schedulers that a SequentialLR is made of, then the scheduler itself."""
    return [*getattr(scheduler, "_schedulers", []), scheduler]


def describe_optimizations(
    args: argparse.Namespace, model: dict[str, Any], scheduler: Any
) -> dict[str, bool]:
    """model: what describe_model returned."""
    names = [type(part).__name__ for part in parts_of(scheduler)]
    return {
        "gradient_clipping": getattr(args, "max_grad_norm", 0.0) > 0,
        "warmup": "SequentialLR" in names,  # --warmup_epochs 0 and 1 have no rise
        "early_stopping": args.patience > 0,
        "cosine_annealing": "CosineAnnealingLR" in names,
        "mixed_precision": args.amp,
        "compiled": args.compile,
        "ema": getattr(args, "ema_decay", 0.0) > 0,
        "frozen_backbone": model["frozen_encoder"] or getattr(args, "freeze_backbone", False),
    }
