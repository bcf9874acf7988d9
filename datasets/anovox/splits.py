"""Splits scenarios into train, val and test: by scenario, never by frame, with both classes in each part."""

import argparse
import math
from pathlib import Path

import numpy as np

from datasets.anovox.files import NORMALITY, UNKNOWN_KIND
from datasets.anovox.flags import SHARE
from datasets.anovox.labels import FrameTable, scenario_of
from datasets.splits import Split, check_disjoint, fold_groups, read_split, split_groups
from utils.run.errors import CommandError, DataError, counted, some
from utils.run.log import LOG


def split_scenarios(table: FrameTable, root: Path, args: argparse.Namespace) -> tuple[Split, str, str]:
    """Scenario names of train, val and test, how they were split, and the outcome of the leakage check.

    --split_method "auto": split.json in `root` if it exists and no towns are held out, else "random".
    "random": stratified by scenario type and town. Otherwise the path of a split file. --holdout_towns: the
    scenarios of these towns are the test part. --fold: stratified as in "random"; overrides the others.
    --label pasted: scenarios with anomalies, if any, are the test part; one or two normal scenarios are cut
    into blocks of consecutive frames. DataError if a part lacks a class that pasting does not supply: AUROC
    is undefined there."""
    method, towns, pasted = args.split_method, args.holdout_towns, args.label == "pasted"
    present = [scenario for scenario in table.scenarios if scenario.name in table.scenario]
    town_of = {scenario.name: scenario.town for scenario in present}
    strata = {scenario.name: f"{scenario.kind} {scenario.town}" for scenario in present}
    anomalous = {*table.scenario[table.labels == 1].tolist()}
    anomalous |= {s.name for s in present if s.kind not in (NORMALITY, UNKNOWN_KIND)}
    judged = sorted(anomalous) if pasted else []
    own, file = root / "split.json", None
    if method not in ("auto", "random"):
        file = Path(method)
    elif method == "auto" and own.exists() and not towns and not args.fold:
        if judged:
            LOG.warning(f"{own} is not used: with --label pasted, scenarios with anomalies are the test part")
        else:
            file = own
            if (args.test_size, args.val_size) != (SHARE, SHARE):
                LOG.warning(f"--test_size, --val_size: {own} decides; --split_method random uses them")
    if towns and file:
        raise CommandError(f"--holdout_towns, --split_method {file}: both choose the test part; omit one")
    if args.fold:
        if judged:
            held = f"{len(judged)} scenarios with anomalies, first {judged[0]}, are the test part"
            raise CommandError(f"--fold {args.fold}: with --label pasted, {held}.\nLeave --fold out.")
        split, how = fold_groups(strata, args.fold, args.seed, strata)
    elif file:
        split = read_split(file)
        how = "split.json in the data folder" if file == own else f"--split_method {method}"
        named = {scenario_of(name) for names in split.values() for name in names}
        if strangers := sorted(named - strata.keys()):
            what = f"{len(strangers)} scenarios without usable frames in {root}, first {strangers[0]}"
            what += f" (there is {min(strata.keys() - named, default='no other')})"
            remedy = "Correct the file, or use --split_method random."
            raise DataError(f"{file} names {what}.\n{remedy}{table.left_out}")
        if left := sorted(strata.keys() - named):
            table.notes.append(f"{len(left)} of {len(strata)} scenarios are in no part: {some(left, 3)}")
    elif towns:
        split, how = _hold_out(strata, town_of, args)
    elif pasted:
        split, how = _draw_normal(table, town_of, judged, args)
    else:
        parts = 1 + (args.test_size > 0) + (args.val_size > 0)
        if len(strata) < parts:
            found = f"{counted(len(strata), 'scenarios')}, but {parts} parts need {parts} or more"
            remedy = "Add scenarios; or cut those without anomalies into blocks with --label pasted."
            raise DataError(f"{found}: frames of one drive are alike.\n{remedy}{table.left_out}")
        split = split_groups(strata, args.test_size, args.val_size, args.seed, strata)
        how = "random by scenario, stratified by type and town"
    outcome = check_disjoint(split, unit="scenarios")
    rows = np.concatenate([table.rows_of(members) for members in split.values()])
    if len(rows) > len(np.unique(rows)):
        raise DataError(f"Leakage: frames are in two parts: blocks overlap ({how}).\nCorrect the file.")
    for part, members in split.items():
        _check_classes(table, part, members, how, pasted)
    return split, how, outcome


def _check_classes(table: FrameTable, part: str, members: list[str], how: str, pasted: bool) -> None:
    """Raise DataError if a part lacks a class, or holds one that pasting alone should supply."""
    labels = table.labels[table.rows_of(members)]
    normal, anomalous = (labels == 0).any(), (labels == 1).any()
    if pasted and part != "test" and anomalous:
        found = f"{(labels == 1).sum()} frames of the {part} split are anomalous ({how})"
        remedy = "Move their scenarios to test, or leave out --split_method and --holdout_towns."
        raise DataError(f"--label pasted: {found}, but only test may have anomalies.\n{remedy}")
    if part == "val" and not members:
        raise DataError(f"the val part is empty ({how}).\nIt chooses epoch and threshold: raise --val_size.")
    if not members or (normal and (anomalous or pasted)):
        return
    every = ("normal" if normal else "anomalous") if len(labels) else "without label"
    found = f"the {part} split has {len(members)} scenarios and {len(labels)} frames, all {every}"
    remedy = "Add scenarios of the other kind, change --seed or the sizes, or give a split file."
    if not table.labels.any():
        remedy = "So are all others. --check_data lists their class ids, --anomaly_ids says which are "
        remedy += "anomalies; --label pasted trains on normal recordings alone."
    raise DataError(f"{found}: both classes are needed.\n{remedy}{table.left_out}")


def _hold_out(strata: dict[str, str], town_of: dict[str, str], args: argparse.Namespace) -> tuple[Split, str]:
    """Test = the scenarios of --holdout_towns; the rest is split at random."""
    towns, there = " ".join(args.holdout_towns), sorted({*town_of.values()})
    if unknown := " ".join(town for town in args.holdout_towns if town not in there):
        raise DataError(f"--holdout_towns {unknown}: no scenario is there; the towns are {', '.join(there)}.")
    held = [name for name, town in town_of.items() if town in args.holdout_towns]
    if len(rest := sorted(strata.keys() - held)) < 2:
        left = f"{len(held)} of {len(town_of)} scenarios are in these towns; train and val need one each"
        raise DataError(f"--holdout_towns {towns}: {left}.\nHold out fewer towns, or add others.")
    split = split_groups(rest, 0, args.val_size, args.seed, strata) | {"test": held}
    return split, f"test = towns {', '.join(sorted(args.holdout_towns))}; the rest random by scenario"


def _draw_normal(
    table: FrameTable, town_of: dict[str, str], judged: list[str], args: argparse.Namespace
) -> tuple[Split, str]:
    """Split normal recordings into train and val and, unless test is `judged` already, test."""
    normal = {name: town for name, town in town_of.items() if name not in judged}
    size = 0 if judged else args.test_size
    how = "test = scenarios with anomalies; the rest" if judged else "normal recordings"
    parts: Split = {"train": [], "val": [], "test": judged}
    if len(normal) >= 3:
        drawn = split_groups(list(normal), size, args.val_size, args.seed, normal)
        parts |= {part: names for part, names in drawn.items() if names}
        how += " random by scenario"
    else:
        how += " in blocks of consecutive frames, which are not independent"
        for name in normal:
            frames = np.sort(table.frame_id[table.rows_of([name])])
            tested = math.ceil(size * len(frames))
            kept = len(frames) - tested - max(1, round(args.val_size * (len(frames) - tested)))
            for part, block in zip(parts, np.split(frames, [kept, len(frames) - tested]), strict=True):
                if len(block):
                    parts[part].append(f"{name}:{block[0]}-{block[-1]}")
    if not parts["train"] or not parts["val"]:
        raise DataError(f"{len(normal)} normal recordings are too few to train and to validate on pastes.")
    return parts, how
