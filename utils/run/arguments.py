"""The flags that all scripts share, and how a command line, `--config` and `--resume` are combined.

Precedence: defaults < args of `--config FILE` < typed flags, which bring the defaults of their FOLLOWERS.
`--resume RUN` takes the args of RUN/config.json and refuses flags that would make it another run;
`--resume auto` looks for a run with the same flags.
"""

import argparse
import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from utils.run.errors import CommandError, suggest
from utils.run.find import find_run
from utils.run.folder import read_record

NOT_RECORDED = {
    "config", "resume", "check_data", "dry_run", "overfit_one_batch", "require_learning", "debug",
    "max_hours", "force",
}  # fmt: skip
MAY_CHANGE_ON_RESUME = NOT_RECORDED | {
    "epochs", "num_workers", "device", "compile", "patience", "save_interval", "plot_interval",
    "log_interval", "cache_dir", "cache_limit_gb", "stall_timeout",
}  # fmt: skip
# --help of a training script shows these flags, --help_all shows every flag.
OFTEN = {
    "help", "help_all", "epochs", "batch_size", "learning_rate", "patience", "seed", "fold", "device", "amp",
    "output_dir", "resume", "config", "check_data", "dry_run", "overfit_one_batch", "image_size", "weights",
    "data_path", "split_method", "pairs_from", "features", "backbone", "use_group_sampling",
    "distance_multiplier", "max_negatives_per_frame", "stage1_balance_ratio", "stage1_checkpoint",
    "stage2_balance_strategy", "freeze_backbone", "image_dir", "excel_path", "id_column", "age_column",
    "id_pattern", "target_unit", "group_column", "model", "freeze_batchnorm", "label", "camera",
    "holdout_towns", "max_points", "image_encoder", "modality", "fusion",
}  # fmt: skip
DATA_PATHS = {"data_path", "image_dir", "excel_path"}
MAY_MOVE = DATA_PATHS | {"split_method", "class_map"}  # --resume compares contents, wherever the files are
SPLITS = ("split_method", "test_size", "val_size", "holdout_towns")  # --fold replaces these
# Flags without a default of their own: it depends on another flag, and so did the value that is recorded.
FOLLOWERS = {
    "features": ("dropout", "augment", "whole_past", "rescore"),
    "stage1_checkpoint": ("features", "backbone", "image_size", "history_seconds", "whole_past", "rescore",
                          "distance_multiplier", "distance_norm"),
}  # fmt: skip


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The script's docstring as it is written, and each flag's help with its default, if it has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return super()._format_args(action, default_metavar).replace("[W ...]", "[W]")  # of --image_size


class ScriptParser(argparse.ArgumentParser):
    """An argparse parser with no abbreviated flags, '-' and '_' alike, and suggestions for mistyped flags."""

    def __init__(self, script: str, description: str | None):
        super().__init__(script, description=description, formatter_class=Formatter, allow_abbrev=False)
        self.register("type", None, some_text)  # of every flag without a type= of its own

    def announce(self, argv: Sequence[str] | None) -> None:
        """Print a first line before the heavy imports, which take seconds and which Ctrl-C ends at once."""
        if argv is None and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # run_script puts it back
        if argv is None and os.environ.get("RANK", "0") == "0":
            with contextlib.suppress(OSError):  # a full disk; the run's own log comes later
                print(f"{self.prog}: starting; PyTorch takes some seconds to load", flush=True)

    def typed(self, argv: Sequence[str] | None) -> list[str]:
        """The typed tokens (default: the command line), with --batch-size=4 spelled --batch_size=4."""
        known = {name.replace("-", "_"): name for name in self._option_string_actions}
        tokens = [token.partition("=") for token in (sys.argv[1:] if argv is None else argv)]
        tokens = [(known.get(flag.replace("-", "_"), flag), *value) for flag, *value in tokens]
        flags = [flag for flag, *_ in tokens]
        for flag, action in self._option_string_actions.items():  # argparse would keep only the last list
            if flags.count(flag) > 1 and action.nargs in ("+", "*") and not isinstance(action, ImageSize):
                self.error(f"{flag} is given twice: pass all its values to one {flag}")
        return list(map("".join, tokens))

    def error(self, message: str) -> None:
        unknown = message.split("unrecognized arguments: ")[-1] if "unrecognized" in message else ""
        if flags := [token.split("=")[0] for token in unknown.split() if token.startswith("-")]:
            message += suggest(flags[0], list(self._option_string_actions))
        self.exit(2, f"{self.prog}: error: {message}\n")


def add_run_arguments(
    parser: ScriptParser, *, epochs: int, batch_size: int, learning_rate: float, weight_decay: float,
    patience: int,
) -> None:  # fmt: skip
    """Add the run-level flags; the script passes the defaults of its recipe."""
    parser.usage = "%(prog)s [FLAGS]"
    parser.add_argument("--help_all", action="help", help="show every flag")
    count, amount, switch = non_negative_int, non_negative_float, argparse.BooleanOptionalAction
    # fmt: off
    add = parser.add_argument_group("run").add_argument
    add("--epochs", type=positive_int, default=epochs, help="passes over the train split")
    add("--batch_size", type=positive_int, default=batch_size, help="samples per process and step")
    add("--learning_rate", "--lr", type=positive_float, default=learning_rate, help="peak learning rate")
    add("--weight_decay", type=amount, default=weight_decay, help="weight decay")
    add("--patience", type=count, default=patience, help="stop after N epochs without improvement; 0 = never")
    add("--num_workers", type=count, default=0, help="loader processes; 0 is fastest once images are cached")
    add("--seed", type=count, default=42, help="seed of all random numbers")
    add("--fold", type=fold, metavar="K/N",
        help="cross-validation: of N parts (by --seed) the K-th is test, the next val; ignores split.json")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--amp", action=switch, default=False, help="mixed precision: bfloat16, or float16 with a scaler")
    add("--compile", action=switch, default=False, help="compile the forward pass (minutes), meant for GPUs")
    add("--output_dir", default="checkpoints", help="folder for the run folders")
    add("--resume", metavar="RUN",
        help="go on with the run in this folder; auto = with the newest unfinished run in --output_dir that "
             "has the same flags and that no process is training, else start a new one")
    add("--force", action=switch, default=False, help="--resume even if another process seems to train it")
    add("--config", metavar="RUN", help="take the flags of a run folder or config.json; typed flags win")
    add("--save_interval", type=count, default=0, help="keep checkpoint_epoch_N.pth every N epochs; 0 = none")
    add("--plot_interval", type=count, default=10, help="redraw the curves every N epochs; 0 = at the end")
    add("--log_interval", type=count, default=0, help="log every N steps; 0 = every minute of a long epoch")
    add("--max_batches", type=count, default=0, help="cut epochs after N steps (never LEARNED); 0 = no cut")
    add("--cache_dir", type=place, metavar="FOLDER",
        help="for decoded images; if not given, data/cache in the checkout")
    add("--cache_limit_gb", type=positive_float, default=4.0, help="largest image cache to build, in GB")
    add("--max_hours", type=amount, default=0.0, help="stop this long after the start, as SIGTERM does")
    add("--stall_timeout", type=amount, default=600.0,
        help="with several ranks, end the job if one takes this many seconds for a step; 0 = never")
    add("--check_data", action=switch, default=False, help="only read and check all input; exit code 0 or 3")
    add("--dry_run", action=switch, default=False, help="two steps, then the report, in a temporary folder")
    add("--overfit_one_batch", action=switch, default=False,
        help="first test whether a copy of the model can learn one batch by heart; the run stays the same")
    add("--require_learning", action=switch, default=False, help="exit code 5 unless the run ends LEARNED")
    add("--debug", action=switch, default=False, help="show the traceback of every error")
    # fmt: on


def parse_arguments(parser: ScriptParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse `argv` (default: the command line) with the precedence at the top of this file.
    Recorded args become a command line in front of the typed one, so they pass the same checks (exit 2):
    1. the typed one alone; 2. recorded + typed; 3. the same without the FOLLOWERS of flags that 2 changed."""
    typed = parser.typed(argv)
    if "--help_all" not in typed:
        rare = [action for action in parser._actions if action.dest not in OFTEN]
        parser.epilog = f"{len(rare)} more flags: {parser.prog} --help_all"
        for action in rare:
            action.help = argparse.SUPPRESS
    args = first = parser.parse_args(typed)  # 1
    if args.resume not in (None, "auto") and args.config:
        parser.error("--resume and --config exclude each other: --resume already takes the flags of its run")
    if args.resume and (args.dry_run or args.check_data):
        parser.error("--resume goes on with a run, but --dry_run and --check_data are for new runs only")
    source = args.config
    if source and Path(source).is_dir():
        source = f"{source}/config.json"
        typed.append(f"--config={source}")
    if args.resume and args.resume != "auto":
        try:
            run = find_run(args.resume, Path(args.output_dir))
        except CommandError as error:
            parser.error(f"--resume: {error}")
        file = Path(args.resume)
        if file.suffix == ".pth" and file.is_file() and file.name != "last.pth":
            parser.error(f"--resume {args.resume}: only last.pth holds what resuming needs: pass {run}")
        if not any((run / name).is_file() for name in ("last.pth", "results.json")):
            again = f"with --config {run}" if (run / "config.json").is_file() else "with the same flags"
            parser.error(f"--resume {run}: nothing was saved in it yet, so begin again {again}")
        typed.append(f"--resume={run}")  # the folder that was found
        source = run / "config.json"
    if source:
        recorded = recorded_args(parser, Path(source))
        args = parser.parse_args(to_argv(parser, recorded) + typed)  # 2
        if not args.config:
            refuse_changes(parser, args, recorded)
        changed = [flag for flag in FOLLOWERS.keys() & recorded.keys() if vars(args)[flag] != recorded[flag]]
        free = {name for flag in changed for name in FOLLOWERS[flag] if parser.get_default(name) is None}
        args = parser.parse_args(to_argv(parser, recorded | dict.fromkeys(free)) + typed)  # 3
    if args.fold:
        splits = {name: parser.get_default(name) for name in SPLITS if hasattr(args, name)}
        if others := [f"--{name}" for name in splits if getattr(first, name) != splits[name]]:
            what = f"--fold {args.fold} decides what is train, val and test"
            parser.error(f"{what}: leave out {' '.join(others)}")
        vars(args).update(splits)
    if args.dry_run:
        args.epochs, args.max_batches, args.save_interval, args.plot_interval = 1, 2, 1, 1
    parser.announce(argv)
    return args


def recorded_args(parser: ScriptParser, path: Path) -> dict[str, Any]:
    """The args section of a config.json; parser.error if it has unknown keys or is of another script."""
    try:
        config = read_record(path, "script_name", "args")
    except CommandError as error:
        parser.error(str(error))
    if (script := config["script_name"]) != parser.prog:
        parser.error(f"{path} belongs to {script}, not to {parser.prog}")
    known = sorted(action.dest for action in parser._actions)
    if unknown := [key for key in config["args"] if key not in known]:
        parser.error(f"{path}: unknown flag '{unknown[0]}' in args{suggest(unknown[0], known)}")
    return {key: value for key, value in config["args"].items() if key not in NOT_RECORDED}


def to_argv(parser: ScriptParser, recorded: dict[str, Any]) -> list[str]:
    """The command line that yields these args; None (not given) is left out."""
    argv: list[str] = []
    for action in parser._actions:
        value, flag = recorded.get(action.dest), action.option_strings[0]
        if value is None:
            continue
        if isinstance(action, argparse.BooleanOptionalAction):
            if not isinstance(value, bool):
                parser.error(f"{flag} in config.json: {value!r} is not true or false")
            argv.append(flag if value else "--no-" + flag[2:])
        elif isinstance(value, list):
            argv += [flag, *map(str, value)]
        else:
            argv.append(f"{flag}={value}")
    return argv


def refuse_changes(parser: ScriptParser, args: argparse.Namespace, recorded: dict[str, Any]) -> None:
    """A resumed run must stay the same run: parser.error lists every typed flag that would change it."""
    fewest = min(args.epochs, recorded["epochs"])
    shaped = recorded.get("scheduler") == "cosine" or recorded.get("warmup_epochs", 0) >= fewest
    may_change = MAY_CHANGE_ON_RESUME | MAY_MOVE
    may_change -= {"epochs"} if shaped else set()  # the schedule depends on epochs
    changed = [key for key, old in recorded.items() if getattr(args, key) != old and key not in may_change]
    if changed:
        table = "\n".join(f"  --{k}: recorded {recorded[k]}, typed {getattr(args, k)}" for k in changed)
        remedy = "start a new run with --config"
        parser.error(f"--resume {args.resume} cannot change these flags:\n{table}\n{remedy}")


def number(convert: type, accept: Callable[[Any], bool], allowed: str) -> Callable[[str], Any]:
    """A type= for add_argument: text that `convert` turns into a finite number that `accept` allows."""

    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and accept(value)):
            raise argparse.ArgumentTypeError(f"{text!r} is not {allowed}")
        return value

    return parse


positive_int = number(int, lambda v: v > 0, "a whole number above 0")
non_negative_int = number(int, lambda v: v >= 0, "a whole number, 0 or more")
positive_float = number(float, lambda v: v > 0, "a number above 0")
non_negative_float = number(float, lambda v: v >= 0, "a number, 0 or more")
fraction = number(float, lambda v: 0 <= v < 1, "a number from 0 to below 1")


def some_text(text: str) -> str:
    if not text.strip():  # $FOLDER that is not set must not mean the default
        raise argparse.ArgumentTypeError("the text is empty: is a variable not set?")
    return text


def place(text: str) -> str:
    """An absolute path: config.json must name the same file from any folder. ~ is the home folder."""
    return os.path.abspath(os.path.expanduser(some_text(text)))


def place_or(*words: str) -> Callable[[str], str]:
    """A type= for add_argument: one of `words`, else a path, absolute if it exists."""

    def parse(text: str) -> str:
        return text if text in words or not os.path.exists(place(text)) else place(text)

    return parse


def fold(text: str) -> str:
    """'2/5', the second of five folds, kept as text. There are at least 3: for train, val and test."""
    k, _, n = text.partition("/")
    if not (k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n) and int(n) >= 3):
        raise argparse.ArgumentTypeError(f"{text!r} is not K/N with N from 3 and K from 1 to N, such as 1/5")
    return f"{int(k)}/{int(n)}"


def auto_or_positive(text: str) -> str:
    """'auto' or a number above 0, kept as text so that config.json records what was typed."""
    if text != "auto":
        positive_float(text)
    return text


class ImageSize(argparse.Action):
    """One or two whole numbers, stored as [height, width]."""

    def __init__(self, option_strings: list[str], dest: str, **kwargs: Any):
        super().__init__(option_strings, dest, nargs="+", type=positive_int, metavar=("H", "W"), **kwargs)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if len(values) > 2:
            parser.error(f"argument {option_string}: one or two whole numbers (H W), not {len(values)}")
        setattr(namespace, self.dest, [values[0], values[-1]])
