"""Problems of single rows and files: collected by kind, refused together unless the user excludes them."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from datasets.ultrasound.cells import EMPTY
from datasets.ultrasound.flags import PROBLEMS
from utils.run.errors import DataError, counted, some

ADVICE = {
    "unknown_names": "--id_pattern tells where the id is, as '^([^_]+)_' in ID_1.png and '([^/]+)/[^/]*$' in "
    "ID/1.png, and with --visit_column where the visit is, as '^([^_]+)_([^_]+)$' in ID_VISIT.png",
    "bad_ages": "--missing_values names what stands for an unknown age, --target_unit the unit of the others "
    "(for a trained run: convert the column)",
    "duplicate_ids": "if a row is a visit: --visit_column and an --id_pattern with a second group; if it is "
    "an image: --file_column, each image with its folders, as in S1/1.png; else give each person an id",
}


class AgeProblems:
    """Problems as (reason, where) by kind, one of PROBLEMS; advice instead of ADVICE; notes for the log."""

    def __init__(self, exclude: Collection[str] = (), may_exclude_most: bool = True):
        self.found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self.advice: dict[str, str] = {}
        self.exclude, self.may_exclude_most = set(exclude), may_exclude_most  # kinds not refused
        self.notes: list[str] = []  # how something was read, if that is not obvious
        self.images = self.missing = 0  # image files found; rows whose age is one of --missing_values

    def add(self, kind: str, where: str, reason: str = "") -> None:
        self.found[kind].append((reason, where))

    def take(self, others: "AgeProblems", table: str) -> None:
        """Add the problems of a table; the first entry of each kind names the table."""
        for kind, ((reason, where), *more) in others.found.items():
            self.found[kind] += [(reason, f"{table}, {where}"), *more]
        self.advice |= others.advice
        self.notes += others.notes
        self.missing += others.missing

    def refuse(self, images: pd.DataFrame) -> None:
        """Raise one DataError for all kinds that are not excluded, with their counts and first entries.

        images: those without a problem. --exclude is proposed only if they show three or more subjects;
        to leave out more than half of all images also needs --exclude_more_than_half."""
        found = {k: counted(len(self.found[k]), text) for k, text in PROBLEMS.items() if k in self.found}
        if refused := [kind for kind in found if kind not in self.exclude]:
            usual = dict(ADVICE)
            if all(reason == EMPTY for reason, _ in self.found.get("bad_ages", ())):
                del usual["bad_ages"]  # what is empty has no unit and no code
            advice = {kind: f" ({text})" for kind, text in (usual | self.advice).items()}
            lines = [f"{found[k]}: {describe(self.found[k])}{advice.get(k, '')}" for k in refused]
            if images.subject.nunique() > 2:
                typed = [kind for kind in PROBLEMS if kind in refused or kind in self.exclude]
                lines.append(f"Correct the data, or leave them out with --exclude {' '.join(typed)}")
            raise DataError("\n".join(lines))
        if found and 0 < 2 * len(images) < self.images and not self.may_exclude_most:
            left = f"--exclude leaves {len(images)} of {self.images} images: {'; '.join(found.values())}"
            raise DataError(f"{left}\nIf this is intended, pass --exclude_more_than_half as well.")

    def report(self) -> dict[str, dict[str, Any]]:
        """{kind: {"count", "first": a sentence}}."""
        return {k: {"count": len(v), "first": describe(v)} for k, v in self.found.items()}


def describe(entries: Sequence[tuple[str, str]]) -> str:
    """The first entries (reason, where) in words: each reason once, with its first places."""
    places = defaultdict(list)
    for reason, where in entries:
        places[reason].append(where)
    texts = [some(found, 3, "; ") + (f": {reason}" if reason else "") for reason, found in places.items()]
    return some(texts, 5, "; ")
