"""Which groups of a data set (subjects, sequences, scenarios) evaluate.py judges, and whether it may.

A run leaves split.json, which groups it trained on, and hashes.json, what each of them held. By these a
group is recognized, whatever the data set does with it now: nobody whom the run was trained on is judged as
unseen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets.splits import PARTS, read_split
from utils.run.errors import CommandError, DataError
from utils.run.folder import read_json
from utils.run.log import LOG

SPLITS = (*PARTS, "unseen", "all")


@dataclass
class Judged:
    """The groups of one split of other or the same data, chosen when this is called with what is there.

    run: its folder; split: one of SPLITS, None for the test part, or everything where the run knows no name;
    own: the data set is where the run's was; unit: what groups are called.
    """

    run: Path
    split: str | None
    own: bool
    unit: str
    names: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def known(self) -> list[str]:
        """The groups of the run."""
        return sum(read_split(self.run / "split.json").values(), [])

    def __call__(self, present: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """{split: names}. `present`: the hashes of every group of the data set, of all first, then of
        contents.

        Raises DataError where the data has changed since the run read it or the run was trained on it,
        CommandError where nobody is left to be judged.
        """
        parts, unit = read_split(self.run / "split.json"), self.unit
        part_of = {name: part for part, names in parts.items() for name in names}
        seen = read_json(self.run / "hashes.json")
        unseen = [name for name in present if name not in part_of]
        if self.split is None:
            self.split = "test" if self.own or len(unseen) < len(present) else "all"
        split = self.split
        self.check_same(present, seen)
        named = {"unseen": unseen, "all": list(present)}.get(split, parts.get(split, []))
        self.names = sorted(name for name in named if name in present)
        self.counts = {"judged": len(self.names), "present": len(present), "unseen": len(unseen)}
        if not self.names:
            raise CommandError(
                f"--split {split}: the data holds none of the {len(named)} {unit} that it names; of "
                f"{len(present)} there {len(unseen)} are unknown to the run\n"
                "--split unseen judges those, --split all a whole other data set"
            )
        if absent := len(named) - len(self.names):
            LOG.warning(f"{absent} of the {len(named)} {unit} of the {split} part are not in the data")
        if split != "train":
            self.check_untrained(present, {name: seen[name] for name in parts["train"]})
        return {split: self.names}

    def sentence(self) -> str:
        """How many of how many are judged, and who is left out."""
        counts, unit = self.counts, self.unit
        text = f"judged {counts['judged']} of {counts['present']} {unit}"
        if counts["unseen"] and self.split in PARTS:
            text += f"; {counts['unseen']} that the run never saw are left out (--split unseen judges them)"
        return text

    def check_same(self, present: Mapping[str, Sequence[str]], seen: Mapping[str, Sequence[str]]) -> None:
        """A name that the run knows stands for what it stood for."""
        changed = [name for name in present if name in seen and list(present[name]) != seen[name]]
        if not changed:
            return
        text = f"{len(changed)} of the run's {self.unit} hold other contents than it read: {some(changed)}"
        if self.own:
            raise DataError(f"{text}\nthe data has changed since: restore it, or train anew")
        LOG.warning(f"{text}; where they are others of the same name, --split all judges all of them")

    def check_untrained(
        self, present: Mapping[str, Sequence[str]], trained: Mapping[str, Sequence[str]]
    ) -> None:
        """Nobody who is judged holds an exact copy of what the run was trained on, under whatever name."""
        owner = {item: name for name, (_, *items) in trained.items() for item in items}
        known = {name: owner[item] for name in self.names for item in present[name][1:] if item in owner}
        if known:
            pairs = [name if name == other else f"{name} (there {other})" for name, other in known.items()]
            raise DataError(
                f"Leakage: {len(known)} of {len(self.names)} {self.unit} hold what the run was trained on: "
                f"{some(pairs)}\nScores on them measure memory. --split test judges the run's test part, "
                "--split unseen whom it never saw."
            )


def some(names: Sequence[str], shown: int = 10) -> str:
    """The first names and how many more there are."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
