"""The pairs of one split as a torch data set: what an epoch samples from it, and its batches."""

import copy
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch.utils.data import Dataset

from datasets.augmentation import GOLDEN, mix
from datasets.jrdb.classes import INTERACTION_CLASSES
from datasets.jrdb.geometry import feature_names
from datasets.jrdb.labels import Sequence
from datasets.jrdb.pairs import PairRules, Pairs, text_key

# Columns of indices, and what they point to: they are renumbered when sequences are joined.
INDEX_INTO = {
    **dict.fromkeys(("frames", "people_frames", "far_frames", "ambiguous_frames"), "frame_keys"),
    **dict.fromkeys(("left", "right"), "boxes"),
    "interaction_groups": "interaction_group_sizes",
}


@dataclass
class NearPairs:
    """All M pairs in range, samples or not, sorted by frame: a sample is scored beside those of its frame."""

    geometry: np.ndarray  # (M, G) float32
    left: np.ndarray  # (M,) int64 person rows
    right: np.ndarray
    frames: np.ndarray  # (M,) int64
    rows: np.ndarray  # (N,) int64: which of these pairs each sample is

    def others(self, samples: np.ndarray) -> np.ndarray:
        """Rows of all pairs in the frames of these samples, without the samples."""
        frames = np.unique(self.frames[self.rows[samples]])
        first, last = np.searchsorted(self.frames, [frames, frames + 1])
        rows = np.concatenate([np.arange(*span) for span in zip(first, last, strict=True)])
        return np.setdiff1d(rows, self.rows[samples])


class JRDBPairDataset(Dataset):
    """N samples of one split, with F frames, R people (a person in two frames is two rows) and G features.

    Per sample (candidate, if `sampled`), sorted by sequence, frame and ids:
        geometry (N, G) float32           columns `feature_names`, NaN without a past
        labels (N,) int64                 index into class_names: interacts 0/1; the type for task "type"
        types (N,) int64                  index into INTERACTION_CLASSES, -1 none
        inferred (N,) bool                not annotated, but linked through other pairs of its group
        ambiguous (N,) bool               see find_pairs; label 0; only for task "any"
        left, right (N,) int64            person rows in canonical order
        frames (N,) int64                 index of the frame
        lots (N,) uint64                  random numbers for `draw`
        interaction_groups (N,) int64     index into interaction_group_sizes (I,) int64, in people
    Per person in any frame of the split, in range of someone or not:
        boxes (R, 4) float64 pixels, people_frames (R,) int64
        social_groups (R,) int64 (-1 unknown), person_ids (R,) str
    Per frame:
        frame_sequences (F,) int64 into `sequences`, frame_keys (F,) str, image_found (F,) bool
        frame_times (F,) int64            frame numbers, --frame_rate per second
    Per annotated pair beyond the distance limit, which every model misses:
        far_types, far_frames (M,) int64
    Per ambiguous pair, in range or not, inferred to interact or not:
        ambiguous_frames (A,) int64
    near: NearPairs; None without rules.rescore and for task "type"
    Set by crops.load_crops in runs that use pixels:
        crops (K, 3, H, W) uint8, crop_rows (R,) int64 into them"""

    def __init__(
        self, name: str, sequences: list[Sequence], pairs: list[Pairs], rules: PairRules,
        task: str, sampled: bool,
    ):  # fmt: skip
        """pairs: what find_pairs returned for each sequence."""
        self.name, self.rules, self.task, self.sampled = name, rules, task, sampled
        self.feature_names = feature_names(rules.history_seconds, rules.whole_past)
        self.sequences = [s.name for s in sequences]
        self.pano_sizes = [(s.width, s.height) for s in sequences]  # in pixels, of the boxes
        self.class_names = INTERACTION_CLASSES if task == "type" else ("no interaction", "interaction")
        self.crops: np.ndarray | None = None
        self.counts: Counter[str] = Counter()  # of find_pairs and of labels.COUNTS
        for sequence, found in zip(sequences, pairs, strict=True):
            self.counts.update(found.counts | sequence.counts)
        rests = [found.rest for found in pairs]
        samples = join([found.samples for found in pairs], rests)
        near = join([found.near for found in pairs], rests)
        vars(self).update(samples | join(rests, rests))
        self.sample_columns = list(samples)
        self.near = NearPairs(rows=np.flatnonzero(near.pop("is_sample")), **near) if near else None
        self.frame_sequences = np.repeat(np.arange(len(rests)), [len(rest["frame_keys"]) for rest in rests])

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sample_sequences(self) -> np.ndarray:
        """(N,) int64 sequence of every sample, the groups of the jackknife."""
        return self.frame_sequences[self.frames]

    def group_names(self) -> list[str]:
        """The names of the samples' sequences, which no two splits may share."""
        return [self.sequences[k] for k in np.unique(self.sample_sequences)]

    @property
    def past_columns(self) -> list[int]:
        """The columns of the geometry that describe the past; they come last."""
        return list(range(len(feature_names(0)), len(self.feature_names)))

    def class_counts(self) -> dict[str, int]:
        """Samples per class name; in the first epoch if the part is sampled."""
        counts = np.bincount(self.labels[self.draw()], minlength=len(self.class_names))
        return dict(zip(self.class_names, counts.tolist(), strict=True))

    def pair_columns(self) -> dict[str, np.ndarray]:
        """The columns that identify each sample in tables; see docs/columns.md."""
        return {
            "sequence": np.array(self.sequences)[self.sample_sequences],
            "frame": self.frame_keys[self.frames],
            "id_left": self.person_ids[self.left],
            "id_right": self.person_ids[self.right],
            "distance_widths": self.geometry[:, self.feature_names.index("distance_widths")],
            "label": np.array(self.class_names)[self.labels],
        }

    def people_and_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """The frame of every person (R,) and the two people of every sample (N, 2), to form groups."""
        return self.people_frames, np.stack([self.left, self.right], axis=1)

    def draw(self, epoch: int = 1) -> np.ndarray:
        """The samples of an epoch, frame by frame; all samples if the part is not sampled.

        Takes all positives, with use_group_sampling at most max(1, round(n * max_group_samples_ratio)) of an
        interaction group of n people, annotated ones before inferred; min(max_negatives_per_frame, max(1,
        round(positives * stage1_balance_ratio))) negatives of a frame; then at most pairs_per_sequence of
        these per sequence (0: all). With --no-resample every epoch takes the same samples."""
        if not self.sampled:
            return np.arange(len(self))
        rules, lots = self.rules, self.lots
        if rules.resample:
            lots = mix(lots ^ np.uint64(text_key(f"epoch {epoch}")))
        positive = (self.labels > 0) | (self.task == "type")
        taken = positive
        if rules.use_group_sampling:
            quota = np.maximum(1, np.rint(self.interaction_group_sizes * rules.max_group_samples_ratio))
            taken = smallest_per_bin(positive, self.interaction_groups, quota, self.inferred, lots)
        positives = np.bincount(self.frames[taken], minlength=len(self.frame_keys))
        quota = np.maximum(1, np.rint(rules.stage1_balance_ratio * positives))
        quota = np.minimum(rules.max_negatives_per_frame, quota)
        taken = taken | smallest_per_bin(~positive, self.frames, quota, lots)
        if rules.pairs_per_sequence:
            quota = np.full(len(self.sequences), rules.pairs_per_sequence)
            taken = smallest_per_bin(taken, self.sample_sequences, quota, mix(lots + np.uint64(GOLDEN)))
        chosen = np.flatnonzero(taken)
        return chosen[neighbouring_order(self.frames[chosen], self.left[chosen], self.right[chosen])]

    def select(self, samples: np.ndarray) -> "JRDBPairDataset":
        """A copy with only these samples, in this order, and the same people and frames; not sampled."""
        chosen = copy.copy(self)
        chosen.sampled = False
        vars(chosen).update({name: getattr(self, name)[samples] for name in self.sample_columns})
        if self.near is not None:
            chosen.near = replace(self.near, rows=self.near.rows[samples])
        return chosen

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """A collated batch of N samples and their P people, each person once: crops (P, 3, H, W) uint8 (only
        with pixels), left, right (N,) int64 into the crops, geometry (N, G) float32, labels (N,), indices
        (N,), frames (N,), persons (P,) int64 person rows. With rules.rescore, left, right, geometry and
        frames go on after the N samples with the other pairs in range of these frames."""
        indices = np.asarray(indices)
        batch = {name: getattr(self, name)[indices] for name in ("left", "right", "geometry", "frames")}
        if self.near is not None:
            others = self.near.others(indices)
            for name in batch:
                batch[name] = np.concatenate([batch[name], getattr(self.near, name)[others]])
        persons, place = np.unique([batch["left"], batch["right"]], return_inverse=True)
        batch["left"], batch["right"] = place.reshape(2, -1)
        batch |= {"labels": self.labels[indices], "indices": indices, "persons": persons}
        if self.crops is not None:
            batch["crops"] = self.crops[self.crop_rows[persons]]
        return {key: torch.from_numpy(np.ascontiguousarray(values)) for key, values in batch.items()}


def join(tables: list[dict], rests: list[dict]) -> dict[str, np.ndarray]:
    """The columns of a table per sequence as those of one. rests: Pairs.rest, whose rows indices count."""
    joined = {}
    for name in tables[0]:
        columns = [table[name] for table in tables]
        if name in INDEX_INTO:
            lengths = [len(rest[INDEX_INTO[name]]) for rest in rests]
            columns = [column + sum(lengths[:k]) for k, column in enumerate(columns)]
        joined[name] = np.concatenate(columns)
    return joined


def smallest_per_bin(
    members: np.ndarray, bins: np.ndarray, quota: np.ndarray, *keys: np.ndarray
) -> np.ndarray:
    """(N,) bool: the first quota[bin] `members` (N,) bool of every bin, sorted by `keys`. bins (N,) int64
    into quota; keys (N,) each, the most important first."""
    members = np.flatnonzero(members)
    order = members[np.lexsort((*(key[members] for key in reversed(keys)), bins[members]))]
    counts = np.bincount(bins[order], minlength=len(quota))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = np.zeros(len(bins), bool)
    chosen[order[rank < quota[bins[order]]]] = True
    return chosen


def neighbouring_order(frame: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N,) order of pairs: frame by frame, with pairs of the same people close together. If a batch boundary
    then cuts a frame, few people are in both batches and have to be encoded twice. People are ranked by
    reverse Cuthill-McKee, which places linked rows close to each other."""
    people = int(max(first.max(initial=0), second.max(initial=0))) + 1
    links = np.r_[first, second], np.r_[second, first]
    graph = coo_array((np.ones(2 * len(first), np.int8), links), shape=(people, people)).tocsr()
    rank = np.empty(people, np.int64)
    rank[reverse_cuthill_mckee(graph, symmetric_mode=True)] = np.arange(people)
    return np.lexsort((rank[first] + rank[second], frame))
