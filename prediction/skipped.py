"""Unreadable files do not stop predict.py: they are listed in skipped.csv and reported at the end."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas

from utils.run.errors import DataError


class Opened:
    """Takes the place of a cache: items are made when they are read. An unreadable item is blank, and
    `skipped` {row: reason} gets its row; its prediction means nothing."""

    def __init__(self, produce: Callable, shape: Sequence[int], skipped: dict[int, str], dtype=np.uint8):
        self.produce, self.shape, self.skipped, self.dtype = produce, shape, skipped, dtype

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.concatenate([self.read(int(k)) for k in rows])

    def read(self, k: int) -> np.ndarray:
        try:
            return self.produce(k)
        except DataError as error:
            self.skipped[k] = str(error).splitlines()[0]
            return np.zeros((1, *self.shape), self.dtype)


def skipped_table(
    columns: Mapping[str, Sequence], reasons: Mapping[int, str], places: Sequence
) -> pandas.DataFrame:
    """The rows of `columns` that are keys of `reasons` {row: why}, sorted, with a column `reason`: it begins
    after the row's file or folder (`places`), which `columns` name."""
    why = {k: re.sub(rf"^{re.escape(str(places[k]))}(: |[/\\])", "", text) for k, text in reasons.items()}
    table = pandas.DataFrame(dict(columns)).assign(reason=pandas.Series(why, dtype=object))
    return table.loc[sorted(reasons)].reset_index(drop=True)


def tell_skipped(skipped: pandas.DataFrame, total: int, unit: str, output: Path) -> None:
    """Raise a DataError that names the first skipped item; call it after everything is written."""
    *name, reason = map(str, skipped.iloc[0])
    raise DataError(
        f"{len(skipped)} of {total} {unit} cannot be read: {' '.join(name)}: {reason}\n"
        f"All of them are listed in {output / 'skipped.csv'}; the other {total - len(skipped)} are predicted."
    )
