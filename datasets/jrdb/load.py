"""A JRDB folder as train, val and test: who interacts, and which pairs a run trains and is judged on.

A pair's way from its label file to the batch; each file can be read to its end before the next is opened:

    load.py       this file: build_datasets, and the two functions below it, go all the way
    labels.py     read_sequence: a label file as columns of people and annotated pairs
    pairs.py      find_pairs: which two people are a pair, and its label
    geometry.py   pair_features, a step of find_pairs: what their boxes say about the two; also what
                  pairs.py asks of two boxes: in_range, first_is_left
    crops.py      load_crops: the pixels of the people, in runs that see them
    dataset.py    JRDBPairDataset: the pairs of a split; `draw` takes an epoch's, `__getitems__` makes a batch

Beside the way: index.py (keeps what labels.py read), splits.py (which sequences), classes.py (names to
types), problems.py (what is wrong, in one error), balance.py (stage 2), augmentation.py (on the batch),
boxes.py (people without labels, to predict).

Every part holds every pair in range, in fixed order, but for the ambiguous ones: two people of one group
whose interaction nobody annotated, and what is above --max_difficulty. Of train an epoch takes a draw
(positives by group, negatives by frame); there, pairs inferred to interact are candidates as well.
"""

import argparse
import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from datasets.cache import fingerprint
from datasets.jrdb.classes import INTERACTION_CLASSES
from datasets.jrdb.crops import find_problems, load_crops
from datasets.jrdb.dataset import JRDBPairDataset
from datasets.jrdb.flags import SAMPLE, LabelRules
from datasets.jrdb.geometry import feature_names
from datasets.jrdb.index import read_sequences
from datasets.jrdb.labels import Sequence, tell_counts
from datasets.jrdb.pairs import PairRules, find_pairs
from datasets.jrdb.problems import Problems
from datasets.jrdb.splits import list_sequences, split_sequences
from datasets.samples import ensure_sample
from datasets.splits import Choose, Parts, Split, check_disjoint
from utils.run.errors import DataError, counted, some
from utils.run.log import LOG


def build_datasets(
    args: argparse.Namespace, task: str = "interaction", choose: Choose | None = None
) -> "PairDatasets":
    """Train, val and test (none where a split has none) as the flags say, or the parts that `choose` makes
    of the sequences; val and test: not sampled.

    task "interaction": every sample is labelled 0 or 1; "type": annotated positives only, labelled by class.
    Flags that a script lacks keep their default of PairRules, but that --pairs_per_sequence is then 0, all.
    CommandError for wrong flags, DataError for unusable files (all of them at once), empty and one-class
    splits; with --check_data every image is decoded that crops are cut from.
    """
    data_path = Path(args.data_path or ensure_sample("jrdb", SAMPLE))
    rules = PairRules(**{"pairs_per_sequence": 0} | given(args, PairRules))  # stage 2 has few enough
    every, split, source = read_labels(args, data_path, bool(choose))
    hashes = {sequence.name: hash_contents(sequence) for sequence in every}
    if choose:
        split = choose(hashes)
    by_name = {sequence.name: sequence for sequence in every}
    loaded = {part: [by_name[name] for name in names] for part, names in split.items() if names}
    sets = {part: join_pairs(part, read, rules, task, part == "train") for part, read in loaded.items()}
    for part, dataset in sets.items():
        check_labels(data_path, part, dataset)
    crops = None
    if args.features != "geometry":
        crops = {"size": tuple(args.image_size), "cache_dir": args.cache_dir, "limit_gb": args.cache_limit_gb}
        problems = Problems()
        for dataset in sets.values():
            find_problems(dataset, data_path, problems, decode=getattr(args, "check_data", False))
        problems.raise_any()
        for dataset in sets.values():
            load_crops(dataset, data_path, **crops)
    outcome, synthetic = check_disjoint(split, "sequences"), (data_path / "SYNTHETIC.json").is_file()
    data = PairDatasets(sets, split, source, outcome, hashes, synthetic, data_path, rules, loaded, crops)
    if task == "interaction" and choose is None:
        data.tell_balance()
    return data


def read_labels(args: argparse.Namespace, data_path: Path, everything: bool) -> tuple[list, Split, str]:
    """The sequences of the split, or `everything`; the split by names, and where it comes from, in words."""
    files = list_sequences(data_path)  # name -> labels/labels_2d_activity_social_stitched/NAME.json
    split, source = {"all": list(files)}, "chosen"
    if not everything:
        split, source = split_sequences(files, data_path, args.split_method, args.fold, args.seed)
    paths = sorted(files[name] for names in split.values() for name in names)  # whatever the split
    rules = LabelRules(**given(args, LabelRules))
    every = read_sequences(paths, data_path, rules, args.cache_dir)  # labels.read_sequences, kept
    tell_counts(every, "labels", "are the images of the size that was annotated?")
    return every, split, source


def join_pairs(
    part: str, sequences: list[Sequence], rules: PairRules, task: str = "interaction", sampled: bool = False
) -> JRDBPairDataset:
    """The pairs of these sequences as one data set; see build_datasets and find_pairs."""
    found = [find_pairs(sequence, rules, task, sampled) for sequence in sequences]
    return JRDBPairDataset(part, sequences, found, rules, task, sampled)


def given(args: argparse.Namespace, rules: type) -> dict[str, object]:
    """The flags that are fields of a dataclass of rules."""
    return {name: vars(args)[name] for name in rules.__dataclass_fields__ if hasattr(args, name)}


def check_labels(data_path: Path, part: str, dataset: JRDBPairDataset) -> None:
    """DataError for a split without samples or, for task "interaction", without both classes."""
    counts = dataset.class_counts()
    if not len(dataset) or (dataset.task == "interaction" and min(counts.values()) == 0):
        raise DataError(
            f"{data_path}: the {part} split can not be learned from; pairs in range: {counts} in "
            f"{some(dataset.sequences, 3)}\n  positives are H-interaction entries (JRDB-Social) or, with "
            "--pairs_from social_group, people of one group (JRDB-Act)\n  add sequences, or change "
            "--distance_multiplier, --max_difficulty, --max_negatives_per_frame or --split_method"
        )


@dataclass
class PairDatasets(Parts):
    """The splits of one data folder, each a JRDBPairDataset, and what was decided on the way."""

    data_path: Path
    rules: PairRules
    loaded: dict[str, list[Sequence]] = field(repr=False)  # by split
    crops: dict | None = field(repr=False)  # how crops.load_crops cuts them; None: the run sees no pixels
    others: dict[tuple[str, str], JRDBPairDataset] = field(default_factory=dict, repr=False)  # of with_task

    def log_lines(self) -> list[str]:
        """Counts per part, a line each."""
        sizes = {name: counted(len(part.sequences), "sequences") for name, part in self.parts.items()}
        return [f"{name}: {sizes[name]}, {len(part.draw())} pairs, {part.class_counts()}"
                for name, part in self.parts.items()]  # fmt: skip

    def describe(self) -> dict[str, object]:
        """The dataset section of config.json."""
        counts = {f"{name}_samples": len(part.draw()) for name, part in self.parts.items()}  # of an epoch
        every = sum(self.loaded.values(), [])
        measured = next((s for s in every if not s.size_source.startswith("no image")), every[0])
        named = [(s.name, s.times, s.track_names, s.width, s.height, s.difficult, hash_contents(s))
                 for s in sorted(every, key=lambda s: s.name)]  # fmt: skip
        return {
            "data_path": str(self.data_path),
            "total_samples": sum(counts.values()),
            **counts,
            "sequences": {name: part.sequences for name, part in self.parts.items()},
            "class_counts": {name: part.class_counts() for name, part in self.parts.items()},
            "split_method": self.split_source,
            "data_leakage_prevention": self.leakage_check,
            "synthetic": self.synthetic,
            "panorama_size": [measured.width, measured.height],
            "panorama_size_source": measured.size_source,
            "fingerprint": fingerprint(named),  # the same wherever the files lie
        }

    def make_references(self) -> dict[str, np.ndarray]:
        """What reference models are made of: geometry (inputs) and labels of every pair in range, of train to
        fit them and of val to choose their thresholds; weights: the share of 20 epochs that draw a pair."""
        train, annotated = copy.copy(self.train), ~self.train.inferred
        train.rules = replace(self.rules, resample=True)
        drawn = np.bincount(np.concatenate([train.draw(k) for k in range(1, 21)]), minlength=len(train))
        train = {"inputs": train.geometry, "labels": train.labels, "weights": drawn / 20}
        found = {f"train_{name}": values[annotated] for name, values in train.items()}
        return found | {"val_inputs": self.val.geometry, "val_labels": self.val.labels}

    def reference_pairs(self, part: str = "train") -> tuple[np.ndarray, np.ndarray]:
        """geometry (N, G) and labels (N,) of `references`."""
        return self.references()[f"{part}_inputs"], self.references()[f"{part}_labels"]

    def tell_balance(self) -> None:
        """Log the class balance of an epoch beside the natural one; a warning where it is upside down."""
        drawn, natural = self.train.labels[self.train.draw()].mean(), self.reference_pairs()[1].mean()
        text = f"{drawn:.1%} of an epoch's train pairs interact, {natural:.1%} of all train pairs in range"
        if (drawn > 0.5) == (natural > 0.5):
            LOG.info(text)
        else:
            flags = "--max_negatives_per_frame and --stage1_balance_ratio decide on it"
            LOG.warning(f"{text}: sampling turns the classes upside down, for val's scale to undo; {flags}")

    def sampling_report(self) -> dict[str, dict[str, dict]]:
        """What sampling kept, removed and lost, {"splits": {part: {...}}}: sampling_report.json.

        Pairs are undirected and counted over the frames used; what was found wrong in the annotations
        (labels.COUNTS) over all labelled frames. negatives_that_are_positives are counted by the names of
        frames and people among the annotated pairs that were read, never from the sampler's own sets.
        order_dependent_decisions: pairs whose in-range decision changes when the two people change places (0
        for a symmetric norm). None where a ratio would divide by 0.
        """
        return {"splits": {name: report_split(part, self.loaded[name]) for name, part in self.parts.items()}}

    def with_task(self, part: str, task: str) -> JRDBPairDataset:
        """Every pair of a split under another task, with the same features: how stage 2 looks at stage 1."""
        if (part, task) not in self.others:
            self.others[part, task] = join_pairs(part, self.loaded[part], self.rules, task)
            if self.crops:
                load_crops(self.others[part, task], self.data_path, **self.crops)
        return self.others[part, task]


def names_of(args: argparse.Namespace) -> dict[str, list[str]]:
    """What a checkpoint must agree on with this code: a weight means nothing under another name."""
    columns = feature_names(args.history_seconds, args.whole_past)
    return {"class_names": list(INTERACTION_CLASSES), "feature_names": columns}


def hash_contents(sequence: Sequence) -> list[str]:
    """Of everything but the name, and of the boxes of each frame of several people: the same recording, or
    a part of it, under any name."""
    everything = ("starts", "boxes", "tracks", "social_groups", "pairs", "types")
    frames = [boxes for boxes in np.split(sequence.boxes, sequence.starts[1:-1]) if len(boxes) > 1]
    return [fingerprint(*(getattr(sequence, c) for c in everything)), *map(fingerprint, frames)]


def report_split(dataset: JRDBPairDataset, read: list[Sequence]) -> dict[str, int | float | None]:
    def ratio(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    counts = dataset.counts
    drawn = dataset.select(dataset.draw())  # of train: the first epoch's
    is_negative = (drawn.labels == 0) & (dataset.task == "interaction")
    negatives, positives = int(is_negative.sum()), int((~is_negative).sum())
    total, near, every = counts["pairs_total"], counts["pairs_in_range"], counts["positives_total"]
    in_range = every - counts["positives_lost_to_distance"]
    return {
        "frames": len(dataset.frame_keys),
        "boxes": len(dataset.boxes),
        **counts,
        "pairs_removed_share": ratio(total - near, total),
        "negatives_per_positive_natural": ratio(total - every, every),
        "negatives_per_positive_in_range": ratio(near - in_range, in_range),
        "sampled_positives": positives,
        "sampled_negatives": negatives,
        "positives_per_negative": ratio(positives, negatives),
        "inferred_positives": int(drawn.inferred.sum()),
        "negatives_that_are_positives": count_wrong(drawn.select(np.flatnonzero(is_negative)), read),
    }


def count_wrong(negatives: JRDBPairDataset, read: list[Sequence]) -> int:
    """How many of these samples are annotated pairs of the sequences."""
    annotated = set()
    for sequence in read:
        frames = np.array(sequence.keys)[sequence.frame_of_row()[sequence.pairs[:, 0]]].tolist()
        people = np.array(sequence.track_names)[sequence.tracks[sequence.pairs]].tolist()  # M lists of 2
        annotated |= {(sequence.name, *pair) for pair in zip(frames, map(frozenset, people), strict=True)}
    who = negatives.pair_columns()
    drawn = zip(*(who[name].tolist() for name in ("sequence", "frame", "id_left", "id_right")), strict=True)
    return sum((name, frame, frozenset(two)) in annotated for name, frame, *two in drawn)
