"""Which scenarios train, validate and test: by scenario, never by frame, with both classes in each part."""

import math
from pathlib import Path

import numpy as np

from datasets.anovox.archives import find_beside
from datasets.anovox.files import NORMALITY, UNKNOWN_KIND, ScenarioFiles
from datasets.anovox.frame import UNKNOWN
from datasets.anovox.labels import FrameTable, whole
from datasets.splits import check_disjoint, describe_fold, fold_groups, read_split, split_groups
from utils.run.errors import CommandError, DataError, some
from utils.run.log import LOG


def split_scenarios(
    table: FrameTable, root: Path | str, method: str = "auto", test_size: float = 0.2, val_size: float = 0.2,
    seed: int = 42, holdout_towns: list[str] | None = None, fold: str | None = None, pasted: bool = False,
) -> tuple[dict[str, list[str]], str, str]:  # fmt: skip
    """Scenario names of train, val and test, how they were split, and the check that none is shared.

    `method`: "auto" = split.json in `root` where there is one and no towns are held out, else "random";
    "random" = stratified by scenario type and town; or a path of a split file. `holdout_towns`: their
    scenarios are the test part. `fold`: "K/N" of `seed`, stratified alike, above all of these. `pasted`:
    scenarios with anomalies are the test part, if there are any, and fewer than three normal ones are cut
    into blocks of consecutive frames. DataError when a part lacks a class that nothing is pasted for: AUROC
    would mean nothing there.
    """
    present = [table.scenarios[i] for i in np.unique(table.scenario)]
    strata = {scenario.name: f"{scenario.kind} {scenario.town}" for scenario in present}
    own, judged = find_beside(Path(root), "split.json"), _with_anomalies(table, present) if pasted else []
    found = method == "auto" and own.exists() and not holdout_towns and not fold
    if found and judged:
        LOG.warning(f"{own} is not used: with --label pasted scenarios with anomalies are the test part")
    elif found:
        method = str(own)
        if (test_size, val_size) != (0.2, 0.2):  # no defaults
            LOG.warning(f"--test_size, --val_size: {own} decides; --split_method random draws by them")
    if holdout_towns and method not in ("auto", "random"):
        raise CommandError(
            f"--holdout_towns, --split_method {method}: each says who is tested; leave one out"
        )
    if fold:
        if judged:
            judged = f"{len(judged)} scenarios with anomalies, first {judged[0]}, are the test part"
            raise CommandError(f"--fold {fold}: with --label pasted the {judged}\nLeave --fold out.")
        split, how = fold_groups(strata, fold, seed, strata), describe_fold(fold, seed)
    elif method not in ("auto", "random"):
        split = read_split(own if method == str(own) else Path(method))
        how = "split.json in the data folder" if method == str(own) else f"--split_method {method}"
        named = {whole(name) for names in split.values() for name in names}
        if strangers := sorted(named - strata.keys()):
            raise DataError(
                f"{method} names {len(strangers)} scenarios without usable frames in {root}, "
                f"first {strangers[0]}.\nCorrect the file, or use --split_method random." + table.left_out
            )
        if left := sorted(strata.keys() - named):
            table.notes.append(f"{len(left)} of {len(strata)} scenarios are in no part: {some(left, 3)}")
    elif holdout_towns:
        split, how = _hold_out(present, holdout_towns, strata, val_size, seed)
    elif pasted:
        split, how = _draw_normal(table, present, judged, test_size, val_size, seed)
    else:
        if len(strata) < (parts := 1 + (test_size > 0) + (val_size > 0)):
            raise DataError(
                f"{len(strata)} of the {parts} scenarios or more that {parts} parts need: each goes to one, "
                "as frames of one drive are alike.\nAdd scenarios; or, where these are recordings without "
                "anomalies, train with --label pasted, which cuts them into blocks." + table.left_out
            )
        split = split_groups(strata, test_size, val_size, seed, strata)
        how = "random by scenario, stratified by type and town"
    outcome = check_disjoint(split, unit="scenarios")
    rows = {part: table.rows_of(members) for part, members in split.items()}
    if sum(map(len, rows.values())) > len(np.unique(np.concatenate([*rows.values()]))):
        raise DataError(f"Leakage: frames are in two parts, blocks overlap ({how}).\nCorrect the file.")
    for part, members in split.items():
        labels = table.labels[rows[part]]
        known = set(labels[labels != UNKNOWN].tolist())
        if pasted and part != "test" and 1 in known:
            raise DataError(
                f"--label pasted: {(labels == 1).sum()} frames of the {part} split are anomalous ({how}), "
                "but such scenarios are for test alone.\nCorrect that, or use --split_method random."
            )
        if members and known != {0, 1} and not (pasted and known == {0}):
            every = "anomalous" if known == {1} else "normal" if known == {0} else "without label"
            raise DataError(
                f"the {part} split has {len(members)} scenarios and {len(labels)} frames, all {every}: both "
                "classes are needed.\nAdd scenarios of the other kind, change --seed or the sizes, or give a "
                "split file." + table.left_out
            )
    return split, how, outcome


def _hold_out(present: list[ScenarioFiles], towns: list[str], strata: dict[str, str], val_size, seed):
    """Test = the scenarios of these towns."""
    there = sorted({scenario.town for scenario in present})
    if unknown := " ".join(town for town in towns if town not in there):
        raise DataError(f"--holdout_towns {unknown}: no scenario lies there; there are {', '.join(there)}.")
    held = [scenario.name for scenario in present if scenario.town in towns]
    if len(rest := sorted(strata.keys() - held)) < 1 + (val_size > 0):
        raise DataError(
            f"--holdout_towns {' '.join(towns)}: {len(held)} of {len(present)} scenarios lie there; train "
            "and val need one each of the rest.\nHold out fewer towns, or add scenarios of others."
        )
    split = split_groups(rest, 0, val_size, seed, strata) | {"test": held}
    return split, f"test = towns {', '.join(sorted(towns))}; the rest random by scenario"


def _with_anomalies(table: FrameTable, present: list[ScenarioFiles]) -> list[str]:
    found = {table.scenarios[i].name for i in table.scenario[table.labels == 1]}
    return sorted(s.name for s in present if s.kind not in (NORMALITY, UNKNOWN_KIND) or s.name in found)


def _draw_normal(
    table: FrameTable, present: list[ScenarioFiles], judged: list[str], test_size, val_size, seed
) -> tuple[dict[str, list[str]], str]:
    """Train and val, and test where no scenario holds anomalies (is `judged`), of normal recordings."""
    normal = {s.name: s.town for s in present if s.name not in judged}
    size = 0 if judged else test_size
    how = "test = scenarios with anomalies; the rest" if judged else "normal recordings"
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": judged}
    if len(normal) >= 3:
        parts |= {k: v for k, v in split_groups(list(normal), size, val_size, seed, normal).items() if v}
        how += " random by scenario"
    else:
        how += " in blocks of consecutive frames: of one drive, nothing is independent"
        for name in normal:
            frames = np.sort(table.frame_id[table.rows_of([name])])
            tested = math.ceil(size * len(frames))
            kept = len(frames) - tested - max(1, round(val_size * (len(frames) - tested)))
            for part, block in zip(parts, np.split(frames, [kept, len(frames) - tested]), strict=True):
                parts[part] += [f"{name}:{block[0]}-{block[-1]}"] if len(block) else []
    if not parts["train"] or not parts["val"]:
        raise DataError(f"{len(normal)} normal recordings are too few to train and to validate on pastes.")
    return parts, how
