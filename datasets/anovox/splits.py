"""Train, val and test of an AnoVox data set: by scenario, never by frame, and both classes in each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.anovox.labels import UNKNOWN, FrameTable
from datasets.splits import check_disjoint, read_split, split_groups
from utils.run.errors import DataError


def split_scenarios(
    table: FrameTable,
    root: Path | str,
    method: str = "auto",
    test_size: float = 0.2,
    val_size: float = 0.2,
    seed: int = 42,
    holdout_towns: list[str] | None = None,
) -> tuple[dict[str, list[str]], str, str]:
    """Scenario names of train, val and test, how they were split, and the check that none is shared.

    `method`: "auto" = split.json in `root` where there is one and no towns are held out, else "random";
    "random" = stratified by scenario type and town; or a path of a split file. `holdout_towns`: their
    scenarios are the test part. DataError when a part lacks a class: AUROC would mean nothing there.
    """
    present = np.unique(table.scenario)
    names = [table.scenarios[i].name for i in present]
    own = Path(root) / "split.json"
    if method == "auto" and own.exists() and not holdout_towns:
        method = str(own)
    if method in ("auto", "random"):
        split, how = _draw_split(table, present, test_size, val_size, seed, holdout_towns)
    else:
        split, how = read_split(Path(method)), f"file {method}"
        if strangers := sorted(set().union(*split.values()) - set(names)):
            raise DataError(
                f"{method} names {len(strangers)} scenarios without usable frames in {root}, "
                f"first {strangers[0]}.\n"
                "Correct the file, or use --split_method random."
            )
    outcome = check_disjoint(split, unit="scenarios")
    for part, members in split.items():
        labels = table.labels[table.rows_of(members)]
        known = set(labels[labels != UNKNOWN].tolist())
        if members and known != {0, 1}:
            raise DataError(
                f"the {part} split has {len(members)} scenarios and {len(labels)} frames, all "
                f"{'anomalous' if known == {1} else 'normal' if known == {0} else 'without label'}: "
                "both classes are needed.\n"
                "Add scenarios of the other kind, change --seed or the sizes, or give a split file."
            )
    return split, how, outcome


def _draw_split(
    table: FrameTable, present, test_size, val_size, seed, holdout_towns
) -> tuple[dict[str, list[str]], str]:
    strata = {
        table.scenarios[i].name: f"{table.scenarios[i].kind} {table.scenarios[i].town}" for i in present
    }
    if not holdout_towns:
        return split_groups(
            list(strata), test_size, val_size, seed, strata
        ), "random by scenario, stratified by type and town"
    towns = {table.scenarios[i].name: table.scenarios[i].town for i in present}
    if unknown := sorted(set(holdout_towns) - set(towns.values())):
        raise DataError(
            f"--holdout_towns {' '.join(unknown)}: no scenario lies there; "
            f"there are {', '.join(sorted(set(towns.values())))}."
        )
    held = sorted(name for name, town in towns.items() if town in holdout_towns)
    rest = {name: stratum for name, stratum in strata.items() if name not in held}
    split = split_groups(list(rest), 0, val_size, seed, rest)
    return {
        **split,
        "test": held,
    }, f"test = towns {', '.join(sorted(holdout_towns))}; the rest random by scenario"
