"""Collect the problems of many files and raise them as one error."""

from collections import Counter
from dataclasses import dataclass, field

from utils.run.errors import DataError, counted


@dataclass
class Problems:
    """All kinds of problems, each with its remedy, count and first examples."""

    found: dict[tuple[str, str], Counter] = field(default_factory=dict)  # (what, remedy): examples
    notes: list[str] = field(default_factory=list)  # warnings of the sequence that is being read

    def add(self, what: str, remedy: str, example: str) -> None:
        self.found.setdefault((what, remedy), Counter())[example] += 1

    def __str__(self) -> str:
        lines = []
        for (what, remedy), examples in self.found.items():
            rest = f"... and {len(examples) - 3} more; " if len(examples) > 3 else ""
            shown = [*list(examples)[:3], f"{rest}{remedy}"]
            lines += [f"{what} ({counted(examples.total(), 'times')})", *(f"  {line}" for line in shown)]
        return "\n".join(lines)

    @property
    def count(self) -> int:
        return sum(examples.total() for examples in self.found.values())

    def raise_any(self) -> None:
        if self.found:
            kinds = f"{len(self.found)} kinds of problems in the data\n" if len(self.found) > 1 else ""
            raise DataError(f"{kinds}{self}")
