"""Load a JRDB folder as train, val and test: the pairs that a run is trained and judged on.

The way of a pair from its label file to the batch, one file after the other:

    load.py       this file: build_datasets and the two functions below it call all the others
    labels.py     read_sequence: a label file as columns of people and annotated pairs
    pairs.py      find_pairs: which two people are a pair, and its label
    geometry.py   pair_features: the features of a pair's boxes; in_range, first_is_left
    crops.py      load_crops: the pixels of the people, in runs that use them
    dataset.py    JRDBPairDataset: the pairs of a split; `draw` samples an epoch, `__getitems__` makes a batch

The other files: index.py (caches what labels.py read), splits.py (which sequences), people.py (who is a
person), classes.py (names to types), problems.py (collects errors), balance.py (stage 2), augmentation.py (on
the batch), boxes.py and box_files.py (people without labels, for predict.py).

Every split holds all pairs in range, in a fixed order, except ambiguous ones: two people of one group whose
interaction nobody annotated, and pairs above --max_difficulty. An epoch samples the train split (positives
by group, negatives by frame); there, pairs that are inferred to interact are candidates as well.
"""

import argparse
import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from datasets.cache import fingerprint
from datasets.jrdb.check import tell_counts
from datasets.jrdb.classes import INTERACTION_CLASSES
from datasets.jrdb.crops import find_problems, images_needed, load_crops
from datasets.jrdb.dataset import JRDBPairDataset
from datasets.jrdb.flags import SAMPLE, LabelRules, given
from datasets.jrdb.geometry import feature_names
from datasets.jrdb.index import read_indexed
from datasets.jrdb.labels import Sequence
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
    """Load train, val and, if the split has one, test; or the parts that `choose` makes of the sequences.

    task "interaction": every sample is labelled 0 or 1; "type": annotated positives only, labelled by class.
    Only train is sampled. Flags that a script lacks have their default in PairRules, except that
    --pairs_per_sequence is then 0 (all). With --check_data every image that crops are cut from is decoded.
    CommandError for wrong flags; DataError for unusable files (all at once), empty and one-class splits."""
    data_path = Path(args.data_path or ensure_sample("jrdb", SAMPLE))
    rules = PairRules(**{"pairs_per_sequence": 0} | given(args, PairRules))  # stage 2 has few enough
    sequences, split, source = read_labels(args, data_path, bool(choose))
    hashes = {name: hash_contents(sequence) for name, sequence in sequences.items()}
    if choose:
        split = choose(hashes)
    loaded = {part: [sequences[name] for name in names] for part, names in split.items() if names}
    sampled = None if choose else "train"
    parts = {part: join_pairs(part, read, rules, task, part == sampled) for part, read in loaded.items()}
    for part, dataset in parts.items():
        check_labels(data_path, part, dataset)
        if choose:
            tell_shape(dataset, choose.dataset)
    outcome, synthetic = check_disjoint(split, "sequences"), (data_path / "SYNTHETIC.json").is_file()
    data = PairDatasets(parts, split, source, outcome, hashes, synthetic, data_path, rules, loaded)
    first = {contents: name for name, (contents, *_) in reversed(hashes.items())}  # of each content
    if copies := [f"{first[h[0]]} and {name}" for name, h in hashes.items() if first[h[0]] != name]:
        raise DataError(f"{data_path}: {some(copies, 3)} hold the same data\n  remove one: it counts twice")
    if args.features != "geometry":
        judged = [name for name in parts if choose or name != "train"]
        load_pixels(args, data, judged_on_any=judged if task == "type" else [])
    if task == "interaction" and choose is None:
        data.tell_balance()
    return data


def read_labels(args: argparse.Namespace, data_path: Path, everything: bool) -> tuple[dict, Split, str]:
    """The sequences of the split or, with `everything`, all, by name; the split; its source in words."""
    files = list_sequences(data_path)  # name -> labels/labels_2d_activity_social_stitched/NAME.json
    split, source = {"all": list(files)}, "chosen"
    if not everything:
        split, source = split_sequences(files, data_path, args.split_method, args.fold, args.seed)
    paths = sorted(files[name] for names in split.values() for name in names)  # one index for every split
    rules = LabelRules(**given(args, LabelRules))
    sequences = read_indexed(paths, data_path, rules, args.cache_dir)
    tell_counts(sequences, "labels", "do the images have the annotated size?")
    return {sequence.name: sequence for sequence in sequences}, split, source


def join_pairs(
    part: str, sequences: list[Sequence], rules: PairRules, task: str = "interaction", sampled: bool = False
) -> JRDBPairDataset:
    """The pairs of these sequences as one data set; arguments as in build_datasets and find_pairs."""
    pairs = [find_pairs(sequence, rules, task, sampled) for sequence in sequences]
    return JRDBPairDataset(part, sequences, pairs, rules, task, sampled)


def load_pixels(args: argparse.Namespace, data: "PairDatasets", judged_on_any: list[str]) -> None:
    """Set the crops of every part. The parts `judged_on_any` share those of their pairs of any kind, which
    stage 2 scores: the people of pairs with a type are among them."""
    cut = data.parts | {name: data.all_in_range(name) for name in judged_on_any}
    problems, cache = Problems(), {"cache_dir": args.cache_dir, "limit_gb": args.cache_limit_gb}
    for part in cut.values():
        find_problems(part, data.data_path, problems, decode=getattr(args, "check_data", False))
    problems.raise_any()
    for name, part in cut.items():
        load_crops(part, data.data_path, tuple(args.image_size), **cache)
        data.parts[name].crops, data.parts[name].crop_rows = part.crops, part.crop_rows


def check_labels(data_path: Path, part: str, dataset: JRDBPairDataset) -> None:
    """DataError for a split without samples or, for task "interaction", with only one class. Warn if social
    groups are no groups: many of one are not annotated as interacting or, if that is inferred, far apart."""
    found, whole, share = "ambiguous_pairs", "pairs_in_range", 1 / 3
    if (dataset.types < 0).all():  # --pairs_from social_group
        found, whole, share = "positives_lost_to_distance", "positives_total", 1 / 2
    if not dataset.counts["difficult_people"] and dataset.counts[found] > share * dataset.counts[whole]:
        what = f"{dataset.counts[found]} {found} of {dataset.counts[whole]} {whole}"
        LOG.warning(f"{part}: {what}: does a cluster_ID mean no group? write -1 in its place")
    tell_motion(dataset)
    counts = dataset.class_counts()
    absent = [name for name, count in counts.items() if not count]
    if absent and part == "train" and dataset.task == "type":
        LOG.warning(f"train: no pair of type {some(absent)}: what train lacks is never predicted")
    if not len(dataset) or (dataset.task == "interaction" and min(counts.values()) == 0):
        raise DataError(
            f"{data_path}: the {part} split lacks samples of a class; pairs in range: {counts} in "
            f"{some(dataset.sequences, 3)}\n  positives are H-interaction entries (JRDB-Social; they alone "
            "have types) or, in a run with stage 1's --pairs_from social_group, groups (JRDB-Act)\n"
            "  add sequences or, to train, change --distance_multiplier, --max_difficulty"
            f"{', --max_negatives_per_frame' * (dataset.task != 'type')} or --split_method"
        )


def tell_motion(dataset: JRDBPairDataset) -> None:
    """Warn if many pairs move as people cannot, 2 heights (3.4 m) or more within a second. On the real
    sequences 2% do, and at most 12% of one."""
    moved = dataset.geometry[:, np.array(dataset.feature_names) == "away_1s"]  # NaN without a past; clipped
    fast = np.abs(moved[np.isfinite(moved)]) >= 2
    if len(fast) > 19 and fast.mean() > 1 / 4:
        remedy = "check --frame_rate, and that ids are of tracks (else no ids; to train: --history_seconds 0)"
        LOG.warning(f"{dataset.name}: {fast.mean():.0%} of pairs move too fast for people: {remedy}")


def tell_shape(dataset: JRDBPairDataset, trained_on: dict) -> None:
    """Warn of panoramas of another shape than those of the training, such as a whole sphere: features measure
    heights in shares of the panorama's. trained_on: the dataset section of the run's config.json."""
    width, height = trained_on.get("panorama_size", (0, 0))
    shapes = zip(dataset.sequences, dataset.pano_sizes, strict=True)
    if odd := [f"{name} {w}x{h}" for name, (w, h) in shapes if abs(w * height - h * width) > h * width / 10]:
        what = f"another shape than the {width}x{height} of the training, to which people's heights relate"
        LOG.warning(f"{some(odd, 3)}: {what}: cut or pad images and boxes to that shape, around the horizon")


@dataclass
class PairDatasets(Parts):
    """The splits of one data folder, each a JRDBPairDataset, and how they were made."""

    data_path: Path
    rules: PairRules
    loaded: dict[str, list[Sequence]] = field(repr=False)  # by split
    others: dict[str, JRDBPairDataset] = field(default_factory=dict, repr=False)  # by all_in_range

    def log_lines(self) -> list[str]:
        return [
            f"{name}: {counted(len(part.sequences), 'sequences')}, {len(part.draw())} pairs, "
            f"{part.class_counts()}, {part.counts['ambiguous_pairs']} ambiguous"
            for name, part in self.parts.items()
        ]

    def describe(self) -> dict[str, object]:
        """The dataset section of config.json."""
        sequences = sum(self.loaded.values(), [])
        measured = next((s for s in sequences if not s.size_source.startswith("no image")), sequences[0])
        contents = [(s.name, s.times, s.track_names, s.width, s.height, s.difficult, self.hashes[s.name])
                    for s in sorted(sequences, key=lambda s: s.name)]  # fmt: skip
        cut = [part for part in self.parts.values() if part.crops is not None]
        images = sum((images_needed(part, self.data_path)[0] for part in cut), [])
        return {
            "data_path": str(self.data_path),
            **self.describe_split({name: len(part.draw()) for name, part in self.parts.items()}),
            "sequences": {name: part.sequences for name, part in self.parts.items()},
            "class_counts": {name: part.class_counts() for name, part in self.parts.items()},
            "panorama_size": [measured.width, measured.height],
            "panorama_size_source": measured.size_source,
            # Does not depend on where the files are
            "fingerprint": fingerprint(contents, [path.stat().st_size for path in images]),
        }

    def make_references(self) -> dict[str, np.ndarray]:
        """The data of the reference models: geometry (inputs) and labels of all pairs in range, of train to
        fit them, of val to choose their thresholds. weights: the share of 20 epochs that draw a pair."""
        train, annotated = copy.copy(self.train), ~self.train.inferred
        train.rules = replace(self.rules, resample=True)
        drawn = np.bincount(np.concatenate([train.draw(k) for k in range(1, 21)]), minlength=len(train))
        columns = {"inputs": train.geometry, "labels": train.labels, "weights": drawn / 20}
        columns = {f"train_{name}": values[annotated] for name, values in columns.items()}
        return columns | {"val_inputs": self.val.geometry, "val_labels": self.val.labels}

    def reference_pairs(self, part: str = "train") -> tuple[np.ndarray, np.ndarray]:
        """geometry (N, G) and labels (N,) of `references`."""
        return self.references()[f"{part}_inputs"], self.references()[f"{part}_labels"]

    def tell_balance(self) -> None:
        """Log the class balance of an epoch and the natural one; warn if the rarer class differs."""
        drawn, natural = self.train.labels[self.train.draw()].mean(), self.reference_pairs()[1].mean()
        text = f"{drawn:.1%} of an epoch's train pairs interact, {natural:.1%} of all train pairs in range"
        if (drawn > 0.5) == (natural > 0.5):
            LOG.info(text)
        else:
            flags = "change --max_negatives_per_frame or --stage1_balance_ratio"
            LOG.warning(f"{text}: sampling reverses the class balance, and calibration must undo it; {flags}")

    def sampling_report(self) -> dict[str, dict[str, dict]]:
        """What sampling kept, removed and lost, {"splits": {part: {...}}}: sampling_report.json.

        Pairs are undirected. They are counted over the frames used, flaws of the annotations (labels.COUNTS)
        over all labelled frames. negatives_that_are_positives: sampled negatives that are annotated as pairs,
        looked up by frame and person names, independent of the sampler. order_dependent_decisions: pairs that
        are in range only in one order of the two people (0 for a symmetric norm). Ratios over 0 are None."""
        return {"splits": {name: report_split(part, self.loaded[name]) for name, part in self.parts.items()}}

    def all_in_range(self, part: str) -> JRDBPairDataset:
        """The pairs of a split for task "any", which stage 2 is judged on, with crops if a run uses them."""
        if part not in self.others:
            self.others[part] = join_pairs(part, self.loaded[part], self.rules, "any")
        return self.others[part]


def names_of(args: argparse.Namespace) -> dict[str, list[str]]:
    """The names that a checkpoint must share with this code: its weights belong to them."""
    columns = feature_names(args.history_seconds, args.whole_past)
    return {"class_names": list(INTERACTION_CLASSES), "feature_names": columns}


def hash_contents(sequence: Sequence) -> list[str]:
    """Hashes of everything but the name, then of the boxes of each frame with several people. They identify a
    recording, or part of it, under any name."""
    everything = ("starts", "boxes", "tracks", "social_groups", "pairs", "types")
    frames = [boxes for boxes in np.split(sequence.boxes, sequence.starts[1:-1]) if len(boxes) > 1]
    return [fingerprint(*(getattr(sequence, c) for c in everything)), *map(fingerprint, frames)]


def report_split(dataset: JRDBPairDataset, read: list[Sequence]) -> dict[str, int | float | None]:
    def ratio(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    counts = dataset.counts
    drawn = dataset.select(dataset.draw())  # of train: the first epoch's
    is_negative = drawn.labels == 0
    negatives, positives = int(is_negative.sum()), int((~is_negative).sum())
    total, near, annotated = counts["pairs_total"], counts["pairs_in_range"], counts["positives_total"]
    in_range = annotated - counts["positives_lost_to_distance"]
    return {
        "frames": len(dataset.frame_keys),
        "boxes": len(dataset.boxes),
        **counts,
        "pairs_removed_share": ratio(total - near, total),
        "negatives_per_positive_natural": ratio(total - annotated, annotated),
        "negatives_per_positive_in_range": ratio(near - in_range, in_range),
        "sampled_positives": positives,
        "sampled_negatives": negatives,
        "positives_per_negative": ratio(positives, negatives),
        "inferred_positives": int(drawn.inferred.sum()),
        "negatives_that_are_positives": count_wrong(drawn.select(np.flatnonzero(is_negative)), read),
    }


def count_wrong(negatives: JRDBPairDataset, read: list[Sequence]) -> int:
    """The number of these samples that are annotated as pairs in the sequences."""
    annotated = set()
    for sequence in read:
        frames = sequence.frame_of_row().tolist()
        people = [sequence.track_names[track] for track in sequence.tracks.tolist()]
        for a, b in sequence.pairs.tolist():
            annotated.add((sequence.name, sequence.keys[frames[a]], frozenset((people[a], people[b]))))
    who = negatives.pair_columns()
    columns = [who[name].tolist() for name in ("sequence", "frame", "id_left", "id_right")]
    return sum((name, key, frozenset(two)) in annotated for name, key, *two in zip(*columns, strict=True))
