"""Pairs of people as a torch data set: one split of the sequences, what an epoch draws of it, and batches."""

import copy
from collections import Counter

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch.utils.data import Dataset

from datasets.augmentation import GOLDEN, mix
from datasets.jrdb.classes import INTERACTION_CLASSES
from datasets.jrdb.geometry import feature_names
from datasets.jrdb.labels import Sequence
from datasets.jrdb.pairs import PairRules, text_key

# What is numbered anew over all sequences: by column, the one whose length it goes up by with each of them.
NUMBERED = {
    **dict.fromkeys(
        ("frames", "people_frames", "far_frames", "ambiguous_frames", "near_frames"), "frame_keys"
    ),
    **dict.fromkeys(("left", "right", "near_left", "near_right"), "boxes"),
    "interaction_groups": "interaction_group_sizes",
    "near_rows": "near_left",
}


class JRDBPairDataset(Dataset):
    """Samples of one split. N samples over F frames and R people, G features, S sequences.

    Per sample (of a `sampled` part: per candidate), ordered by sequence and frame, in a frame by ids:
        geometry (N, G) float32           columns `feature_names`, NaN where there is no past
        labels (N,) int64                 interacts 0/1, or the type for task "type": index into class_names
        types (N,) int64                  into INTERACTION_CLASSES, -1 none
        inferred (N,) bool                joined through others of its group, never annotated
        ambiguous (N,) bool               of task "any" alone: see find_pairs; label 0
        left, right (N,) int64            person rows in canonical order
        frames (N,) int64                 into the F frames
        lots (N,) uint64, interaction_groups (N,) int64: what `draw` goes by, with
        interaction_group_sizes (I,) int64 people in each of the split's interaction groups
    Everybody in every frame of the split, in range of someone or not:
        boxes (R, 4) float64 pixels, people_frames (R,) int64
        social_groups (R,) int64 (-1 none), person_ids (R,) str
        frame_sequences (F,) int64 into `sequences`, frame_keys (F,) str, image_found (F,) bool
        frame_times (F,) int64 frame numbers, --frame_rate per second
    Annotated pairs beyond the distance limit, misses of any model:
        far_types (M,) int64, far_frames (M,) int64
    All ambiguous pairs, near or not, inferred to interact or not:
        ambiguous_frames (A,) int64
    With rules.rescore, every pair in range, a sample or not, in order of the frames:
        near_geometry (M, G) float32, near_left, near_right, near_frames (M,) int64
        near_rows (N,) int64              of the samples among them
    Set by crops.load_crops in runs that see pixels:
        crops (K, 3, H, W) uint8, crop_rows (R,) int64 into them
    """

    def __init__(
        self, name: str, sequences: list[Sequence], found: list[tuple[dict, dict]], rules: PairRules,
        task: str, sampled: bool,
    ):  # fmt: skip
        """found: what pairs.find_pairs gave of each of the sequences."""
        self.name, self.rules, self.task, self.sampled = name, rules, task, sampled
        self.feature_names = feature_names(rules.history_seconds, rules.whole_past)
        self.sequences = [s.name for s in sequences]
        self.pano_size = sequences[0].width, sequences[0].height
        self.class_names = INTERACTION_CLASSES if task == "type" else ("no interaction", "interaction")
        self.crops: np.ndarray | None = None
        self.counts: Counter[str] = Counter()  # of find_pairs and of labels.COUNTS
        for sequence, (_, counts) in zip(sequences, found, strict=True):
            self.counts.update(counts | sequence.counts)
        parts = [columns for columns, _ in found]
        for key in parts[0]:
            columns = [part[key] for part in parts]
            if key in NUMBERED:
                before = np.cumsum([0, *(len(part[NUMBERED[key]]) for part in parts[:-1])])
                columns = [column + n for column, n in zip(columns, before, strict=True)]
            setattr(self, key, np.concatenate(columns))
        self.frame_sequences = np.repeat(np.arange(len(parts)), [len(part["frame_keys"]) for part in parts])

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sample_sequences(self) -> np.ndarray:
        """(N,) int64 sequence of every sample: what intervals leave out one at a time."""
        return self.frame_sequences[self.frames]

    def group_names(self) -> list[str]:
        """The sequences of the samples: what no two splits may share."""
        return [self.sequences[k] for k in np.unique(self.sample_sequences)]

    @property
    def past_columns(self) -> list[int]:
        """The columns of the geometry that tell the past, which come last."""
        return list(range(len(feature_names(0)), len(self.feature_names)))

    def class_counts(self) -> dict[str, int]:
        """Samples per class, by name; of a sampled part those of the first epoch."""
        counts = np.bincount(self.labels[self.draw()], minlength=len(self.class_names))
        return dict(zip(self.class_names, counts.tolist(), strict=True))

    def pair_columns(self) -> dict[str, np.ndarray]:
        """Who each sample is, for tables: docs/columns.md."""
        return {
            "sequence": np.array(self.sequences)[self.sample_sequences],
            "frame": self.frame_keys[self.frames],
            "id_left": self.person_ids[self.left],
            "id_right": self.person_ids[self.right],
            "distance_widths": self.geometry[:, self.feature_names.index("distance_widths")],
            "label": np.array(self.class_names)[self.labels],
        }

    def people_and_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """The frame of everybody (R,) and the two people of every sample (N, 2): what groups are made of."""
        return self.people_frames, np.stack([self.left, self.right], axis=1)

    def draw(self, epoch: int = 1) -> np.ndarray:
        """The samples that an epoch takes, frame by frame; all samples of a part that is not sampled.

        Of each interaction group of n people at most max(1, round(n * max_group_samples_ratio)) positives,
        annotated ones before inferred; of each frame min(max_negatives_per_frame, max(1, round(positives *
        stage1_balance_ratio))) others; of what is then left of a sequence at most pairs_per_sequence (0:
        all). With --no-resample every epoch takes the same.
        """
        if not self.sampled:
            return np.arange(len(self))
        rules, positive = self.rules, (self.labels > 0) | (self.task == "type")
        lots = mix(self.lots ^ np.uint64(text_key(f"epoch {epoch}"))) if rules.resample else self.lots
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
        """The same people and frames with these samples only, in this order; nothing is drawn from them."""
        chosen = copy.copy(self)
        chosen.sampled = False
        columns = ["geometry", "types", "labels", "inferred", "ambiguous", "left", "right", "frames"]
        for name in columns + ["near_rows"] * hasattr(self, "near_rows"):
            setattr(chosen, name, getattr(self, name)[samples])
        return chosen

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """A collated batch of N samples and their P people, each person once: crops (P, 3, H, W) uint8 (only
        with pixels), left, right (N,) int64 into the crops, geometry (N, G) float32, labels (N,), indices
        (N,), frames (N,), persons (P,) int64 person rows. With rules.rescore the other pairs in range of
        these frames stand behind the N in left, right, geometry and frames."""
        indices = np.asarray(indices)
        batch = {name: getattr(self, name)[indices] for name in ("left", "right", "geometry", "frames")}
        if hasattr(self, "near_rows"):
            others = self.others_near(indices)
            near = {name: getattr(self, f"near_{name}")[others] for name in batch}
            batch = {name: np.concatenate([values, near[name]]) for name, values in batch.items()}
        persons, place = np.unique([batch["left"], batch["right"]], return_inverse=True)
        batch["left"], batch["right"] = place.reshape(2, -1)
        batch |= {"labels": self.labels[indices], "indices": indices, "persons": persons}
        if self.crops is not None:
            batch["crops"] = self.crops[self.crop_rows[persons]]
        return {key: torch.from_numpy(np.ascontiguousarray(values)) for key, values in batch.items()}

    def others_near(self, indices: np.ndarray) -> np.ndarray:
        """Rows of the pairs in range of the frames of these samples that are none of them."""
        frames = np.unique(self.frames[indices])
        first, last = np.searchsorted(self.near_frames, [frames, frames + 1])
        rows = np.concatenate([np.arange(*span) for span in zip(first, last, strict=True)])
        return np.setdiff1d(rows, self.near_rows[indices])


def smallest_per_bin(
    members: np.ndarray, bins: np.ndarray, quota: np.ndarray, *keys: np.ndarray
) -> np.ndarray:
    """(N,) bool: of the `members` (N,) bool of every bin the first quota[bin] in the order of `keys`. bins
    (N,) int64 into quota; keys (N,) each, the most important first."""
    members = np.flatnonzero(members)
    order = members[np.lexsort((*(key[members] for key in reversed(keys)), bins[members]))]
    counts = np.bincount(bins[order], minlength=len(quota))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = np.zeros(len(bins), bool)
    chosen[order[rank < quota[bins[order]]]] = True
    return chosen


def neighbouring_order(frame: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N,) an order of pairs: frame by frame, in each such that pairs of the same people are neighbours. A
    frame cut by a batch boundary then shares few people between two batches, each of which encodes its own.
    People are ranked by reverse Cuthill-McKee, which keeps linked rows close to each other."""
    people = int(max(first.max(initial=0), second.max(initial=0))) + 1
    links = np.r_[first, second], np.r_[second, first]
    graph = coo_array((np.ones(2 * len(first), np.int8), links), shape=(people, people)).tocsr()
    rank = np.empty(people, np.int64)
    rank[reverse_cuthill_mckee(graph, symmetric_mode=True)] = np.arange(people)
    return np.lexsort((rank[first] + rank[second], frame))
