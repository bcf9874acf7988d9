"""Which groups of a data set (subjects, sequences, scenarios) evaluate.py judges, and whether it may.

A run leaves split.json, which groups it trained on, and hashes.json, what each of them held. By these a
group is recognized whatever it is called now.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets.splits import PARTS, read_split
from utils.run.errors import CommandError, DataError, some
from utils.run.folder import read_record
from utils.run.log import LOG

CHECKED = "data_leakage_prevention"  # in config.json: how many groups were in which part
Hashes = Mapping[str, Sequence[str]]  # of every group: of all that it holds first, then of each content


@dataclass
class Judge:
    """Chooses the groups of one split, of the run's data or of others, from what is there."""

    run: Path
    split: str | None  # None: the test part, or everything where the run knows no name
    own: bool  # the data is where the run's was
    unit: str  # what groups are called
    counts: dict[str, int] = field(default_factory=dict)  # of groups judged, present, unseen: once called
    sentence: str = ""  # on them

    def __post_init__(self) -> None:
        """Read whom the run knows, by part and as it wrote them down; CommandError where that was edited."""
        path = self.run / "split.json"
        self.parts, text = read_split(path), read_record(path)
        self.known = sum((text.get(part, []) for part in PARTS), [])
        self.seen = read_record(self.run / "hashes.json", *self.parts["train"])
        told = str(dict(read_record(self.run / "config.json", "dataset")["dataset"]).get(CHECKED))
        counts = [int(n) for n in re.findall(r"(\d+) (?:train|val|test)\b", told) if n != "0"]
        if self.known != list(self.seen) or [len(part) for part in self.parts.values() if part] != counts:
            wrong = f"{path} is not the split that the run was trained by (hashes.json, config.json)"
            raise CommandError(f"{wrong}\nput it back as it was; --split chooses a part of it")

    def __call__(self, present: Hashes, labelled: bool = True) -> dict[str, list[str]]:
        """{split: names}; `labelled`: `present` is read with the run's labels. DataError where the data has
        changed since the run read it or the run was trained on it, CommandError where nobody is left."""
        parts, seen, known = self.parts, self.seen, set(self.known)
        unseen = [name for name in present if name not in known]
        split = self.split or ("test" if self.own or len(unseen) < len(present) else "all")
        changed = [name for name, held in present.items() if name in seen and list(held) != seen[name]]
        if changed and labelled:  # a name that the run knows stands for something else
            other = f"{self.unit} hold other contents than it read: {some(changed)}"
            text = f"{len(changed)} of the run's {other}"
            if self.own:
                raise DataError(f"{text}\nthe data has changed since: restore it, or train anew")
            LOG.warning(f"{text}; where they are others of the same name, --split all judges all of them")
        named = {"unseen": unseen, "all": list(present)}.get(split, parts.get(split, []))
        names = sorted(name for name in named if name in present)
        if not names:
            there = f"of {len(present)} there {len(unseen)} are unknown to the run"
            what = f"the data holds none of the {len(named)} {self.unit} that it names; {there}"
            remedy = "--split unseen judges those, --split all a whole other data set"
            if split == "unseen":
                what = f"nothing in this data is new to the run, which knows all {len(present)} {self.unit}"
                remedy = "give other data with --data_path (of ages: --image_dir)"
            elif split in self.parts and not named:
                what = f"the run has no {split} part; its own figures are of val"
                remedy = "--split val judges that, --split all a whole other data set"
            raise CommandError(f"--split {split}: {what}\n{remedy}")
        if absent := len(named) - len(names):
            LOG.warning(f"{absent} of the {len(named)} {self.unit} of the {split} part are not in the data")
        if split != "train":
            self.check_untrained(present, names)
        self.counts = {"judged": len(names), "present": len(present), "unseen": len(unseen)}
        self.sentence = f"judged {len(names)} of {len(present)} {self.unit}"
        if unseen and split in PARTS:
            left_out = f"{len(unseen)} that the run never saw are left out (--split unseen judges them)"
            self.sentence += f"; {left_out}"
        return {split: names}

    def check_untrained(self, present: Hashes, names: list[str]) -> None:
        """Nobody who is judged holds an exact copy of what the run was trained on, under whatever name."""
        owner = {item: name for name in self.parts["train"] for item in self.seen[name][1:]}
        known = {name: owner[item] for name in names for item in present[name][1:] if item in owner}
        if known:
            pairs = [name if name == other else f"{name} (there {other})" for name, other in known.items()]
            raise DataError(
                f"Leakage: {len(known)} of {len(names)} {self.unit} hold what the run was trained on: "
                f"{some(pairs)}\nScores on them measure memory. --split test judges the run's test part, "
                "--split unseen whom it never saw."
            )
