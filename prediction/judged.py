"""Choose the groups (subjects, sequences, scenarios) of a data set that evaluate.py judges.

A run writes its groups to split.json and hashes of their contents to hashes.json. By the hashes a group is
recognised under any name, so that no model is judged on its training data by mistake.
"""

from dataclasses import dataclass, field
from pathlib import Path

from datasets.splits import PARTS, read_split
from utils.run.errors import CommandError, DataError, some
from utils.run.folder import read_record
from utils.run.leakage import Hashes, shared
from utils.run.log import LOG


@dataclass
class Judge:
    """Chooses the groups of one split among those in the data, which may be the run's own or other data."""

    run: Path
    split: str | None  # None: test, or all if the run knows none of the groups
    own: bool  # the data is read where and as the run read it
    unit: str  # what groups are called
    counts: dict[str, int] = field(default_factory=dict)  # groups judged, present, unseen; set by a call
    sentence: str = ""  # describes the counts

    def __post_init__(self) -> None:
        """Read the groups that the run knows; open_trained has compared them with the checkpoint."""
        self.parts = read_split(self.run / "split.json")
        self.dataset = read_record(self.run / "config.json", "dataset")["dataset"]
        self.seen = read_record(self.run / "hashes.json", *self.parts["train"])

    def __call__(self, present: Hashes, labelled: bool = True) -> dict[str, list[str]]:
        """{split: names of the groups to judge}. labelled: `present` hashes the data with the run's labels.
        DataError if the data has changed or the run was trained on it, CommandError if no group is left."""
        seen, doubt, unseen = self.seen, "", [name for name in present if name not in self.seen]
        split = self.split or ("test" if self.own or len(unseen) < len(present) else "all")
        changed = [name for name, hashes in present.items() if name in seen and list(hashes) != seen[name]]
        if changed and labelled:  # groups with a known name but other contents
            why = f"{len(changed)} of the run's {self.unit} have other contents than it read: {some(changed)}"
            if self.own:
                raise DataError(f"{why}\nthe data has changed since: restore it, or train again")
            doubt = f"{why} (other files or flags); if they only share the names, --split all judges all"
            LOG.warning(doubt)
        chosen = (self.parts | {"unseen": unseen, "all": list(present)}).get(split, [])
        names = sorted(name for name in chosen if name in present)
        if not names:
            new = f"the run does not know {len(unseen)} of the {len(present)} in the data"
            what = f"the data has none of the {len(chosen)} {self.unit} of this part; {new}"
            remedy = "--split unseen judges the unknown ones, --split all the whole of another data set"
            if split == "unseen":
                what = f"nothing in this data is new to the run, which knows all {len(present)} {self.unit}"
                remedy = "pass other data with --data_path (for ages: --image_dir)"
            elif split in self.parts and not chosen:
                what = f"the run has no {split} part; its own figures are of val"
                remedy = "--split val judges that, --split all the whole of another data set"
            raise CommandError(f"--split {split}: {what}\n{remedy}")
        if absent := len(chosen) - len(names):
            LOG.warning(f"{absent} of the {len(chosen)} {self.unit} of the {split} part are not in the data")
        if split != "train":
            self.check_untrained(present, names)
        self.counts = {"judged": len(names), "present": len(present), "unseen": len(unseen)}
        self.sentence = f"judged {len(names)} of {len(present)} {self.unit}"
        if doubt and split != "all":
            self.sentence += f"; {doubt}"
        if unseen and split in PARTS:
            left_out = f"{len(unseen)} that the run never saw are left out (--split unseen judges them)"
            self.sentence += f"; {left_out}"
        return {split: names}

    def check_untrained(self, present: Hashes, names: list[str]) -> None:
        """DataError if a group to judge holds an exact copy of training data, under any name."""
        trained = {name: self.seen[name] for name in self.parts["train"]}
        copies = shared(trained, {name: present[name] for name in names})
        if copies:
            pairs = [name if name == other else f"{name} (there {other})" for name, other in copies.items()]
            raise DataError(
                f"Leakage: {len(copies)} of {len(names)} {self.unit} contain what the run was trained on: "
                f"{some(pairs)}\nScores on them measure memory: remove them. --split test judges the run's "
                f"test part, --split unseen {self.unit} that it never saw."
            )
