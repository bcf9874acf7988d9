"""Pairs of people as a torch data set: one split of the sequences, everybody in it, and its samples."""

import copy
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.utils.data import Dataset

from datasets.images import read_image
from datasets.jrdb.crops import crop_cache
from datasets.jrdb.features import STATIC_FEATURES, feature_names, pair_features
from datasets.jrdb.labels import INTERACTION_CLASSES, Sequence
from datasets.jrdb.pairs import (
    PairRules,
    candidates,
    draw_samples,
    find_pairs,
    first_is_left,
    neighbouring_order,
)
from datasets.jrdb.problems import Problems
from datasets.jrdb.records import IMAGE_FOLDER
from utils.metrics.interaction import Outcomes
from utils.metrics.jrdb_act import group_rows
from utils.run.errors import DataError


class JRDBPairDataset(Dataset):
    """Samples of one split. N samples over F frames and R people, G features, S sequences.

    Per sample (of a `sampled` part: per candidate), ordered by sequence and frame, in a frame by ids:
        geometry (N, G) float32           columns `feature_names`, NaN where there is no past
        labels (N,) int64                 interacts 0/1, or the type for task "type": index into class_names
        types (N,) int64                  into INTERACTION_CLASSES, -1 none
        inferred (N,) bool                joined through others of its group, never annotated
        ambiguous (N,) bool               of task "any" alone: in one group, never annotated, label 0
        left, right (N,) int64            person rows in canonical order
        frames (N,) int64                 into the F frames
        draws (N,) uint64, interaction_groups (N,) int64: what `draw` goes by
    Everybody in every frame of the split, in range of someone or not:
        boxes (R, 4) float64 pixels, people_frames (R,) int64
        social_groups (R,) int64 (-1 none), person_ids (R,) str
        frame_sequences (F,) int64 into `sequences`, frame_keys (F,) str, image_found (F,) bool
        frame_times (F,) int64 frame numbers, 15 per second
    Annotated pairs beyond the distance limit, misses of any model:
        out_of_range_types (M,) int64, out_of_range_frames (M,) int64
    """

    def __init__(
        self, name: str, sequences: list[Sequence], rules: PairRules, task="interaction", sampled=False
    ):
        self.name, self.rules, self.task, self.sampled = name, rules, task, sampled
        self.feature_names = feature_names(rules.history_seconds)
        self.sequences = [s.name for s in sequences]
        self.pano_size = sequences[0].width, sequences[0].height
        self.class_names = INTERACTION_CLASSES if task == "type" else ("no interaction", "interaction")
        self.crops: np.ndarray | None = None
        columns: dict[str, list[np.ndarray]] = {}
        frame_count = row_count = group_count = 0
        for number, sequence in enumerate(sequences):
            found = find_pairs(sequence, rules)
            samples = candidates(found, rules, task, sampled)
            inferred = found.ambiguous[samples] & sampled
            first, second = found.first[samples], found.second[samples]
            # Rows are sorted by id, so the lower row has the lower id.
            lower = np.ones(len(first), bool)
            a_left = first_is_left(sequence.boxes[first], sequence.boxes[second], lower, sequence.width)
            left, right = np.where(a_left, first, second), np.where(a_left, second, first)
            types, far = found.types[samples], np.flatnonzero(found.annotated & ~found.in_range)
            frame_index = np.full(len(sequence.keys), -1)
            frame_index[found.frames] = frame_count + np.arange(len(found.frames))
            kept = np.flatnonzero(frame_index[sequence.frame_of_row()] >= 0)
            row_index = np.full(len(sequence.boxes), -1)
            row_index[kept] = row_count + np.arange(len(kept))
            part = {
                "geometry": pair_features(sequence, left, right, rules.history_seconds),
                "types": np.maximum(types, -1),
                "labels": types if task == "type" else ((types > -2) | inferred).astype(np.int64),
                "inferred": inferred,
                "ambiguous": found.ambiguous[samples] & ~inferred,
                "left": row_index[left],
                "right": row_index[right],
                "frames": frame_index[found.frame[samples]],
                "draws": found.draws[samples],
                "interaction_groups": group_count + found.group[samples],
                "group_sizes": found.group_sizes,
                "boxes": sequence.boxes[kept],
                "people_frames": frame_index[sequence.frame_of_row()[kept]],
                "social_groups": sequence.groups[kept],
                "person_ids": np.array(sequence.track_names)[sequence.tracks[kept]],
                "frame_sequences": np.full(len(found.frames), number),
                "frame_keys": np.array(sequence.keys)[found.frames],
                "frame_times": sequence.times[found.frames],
                "image_found": sequence.image_found[found.frames],
                "out_of_range_types": np.maximum(found.types[far], -1),
                "out_of_range_frames": frame_index[found.frame[far]],
                "ambiguous_frames": frame_index[found.frame[found.ambiguous]],
            }
            for key, values in part.items():
                columns.setdefault(key, []).append(values)
            frame_count, row_count = frame_count + len(found.frames), row_count + len(kept)
            group_count += len(found.group_sizes)
        for key, parts in columns.items():
            setattr(self, key, np.concatenate(parts))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def positives_out_of_range(self) -> int:
        """Annotated pairs beyond the distance limit."""
        return len(self.out_of_range_types)

    @property
    def groups(self) -> np.ndarray:
        """(N,) sequence number of every sample: what the bootstrap resamples."""
        return self.frame_sequences[self.frames]

    def group_names(self) -> list[str]:
        """The sequences of the samples."""
        return [self.sequences[k] for k in np.unique(self.groups)]

    @property
    def past_columns(self) -> list[int]:
        """The columns of the geometry that tell the past."""
        return [k for k, name in enumerate(self.feature_names) if name not in STATIC_FEATURES]

    def class_counts(self) -> dict[str, int]:
        """Samples per class, by name; of a sampled part those of the first epoch."""
        counts = np.bincount(self.labels[self.draw()], minlength=len(self.class_names))
        return dict(zip(self.class_names, counts.tolist(), strict=True))

    def pair_columns(self) -> dict[str, np.ndarray]:
        """Who each sample is, for tables: sequence, frame, id_left, id_right, distance_widths (between
        them, in widths of a person), label (a class name)."""
        return {
            "sequence": np.array(self.sequences)[self.groups],
            "frame": self.frame_keys[self.frames],
            "id_left": self.person_ids[self.left],
            "id_right": self.person_ids[self.right],
            "distance_widths": self.geometry[:, self.feature_names.index("distance_widths")],
            "label": np.array(self.class_names)[self.labels],
        }

    def people_and_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """The frame of everybody (R,) and the two people of every sample (N, 2): what groups are made of."""
        return self.people_frames, np.stack([self.left, self.right], axis=1)

    def every_pair(self, p_interaction: np.ndarray, p_types: np.ndarray) -> Outcomes:
        """All pairs of all frames with these answers (N,) and (N, K): "none" beyond the distance limit.

        Left out are the ambiguous, and interacting pairs whose type nobody knows: they have no true outcome.
        """
        typed = ((self.labels == 0) & ~self.ambiguous) | (self.types >= 0)
        far = self.out_of_range_types >= 0
        people = np.bincount(self.people_frames, minlength=len(self.frame_keys))
        seen = np.concatenate([self.frames[~self.ambiguous], self.out_of_range_frames, self.ambiguous_frames])
        others = people * (people - 1) // 2 - np.bincount(seen, minlength=len(people))  # far, not annotated
        frames = np.concatenate([self.frames[typed], self.out_of_range_frames[far], np.arange(len(people))])
        beyond = len(frames) - typed.sum()
        return Outcomes(
            truth=np.concatenate([self.types[typed] + 1, self.out_of_range_types[far] + 1, 0 * others]),
            p_interaction=np.concatenate([p_interaction[typed], np.full(beyond, -1.0)]),
            p_types=np.concatenate([p_types[typed], np.zeros((beyond, p_types.shape[1]))]),
            weight=np.concatenate([np.ones(len(frames) - len(others)), others]),
            groups=self.frame_sequences[frames],
            frames=frames,
        )

    def keyframe_rows(
        self, groups: np.ndarray, people: np.ndarray, names: list[str], last: float = 1.0
    ) -> np.ndarray:
        """The rows of det_group.txt or gt_group.txt of these `people` (rows), in groups (R,).

        Sequences are numbered by their place in the sorted `names`, as the toolkit numbers a folder; `last`
        is a detection's score or the truth's difficulty.
        """
        frames = self.people_frames[people]
        number = np.array([sorted(names).index(name) for name in self.sequences])
        sequences, times = number[self.frame_sequences[frames]], self.frame_times[frames]
        scores = np.full(len(people), last)
        return group_rows(sequences, times, self.boxes[people], groups[people], scores, self.pano_size)

    def draw(self, epoch: int = 1) -> np.ndarray:
        """The samples that an epoch takes, frame by frame, in each such that pairs of the same people are
        neighbours; all samples of a part that is not sampled. With --no-resample every epoch takes the same.
        """
        if not self.sampled:
            return np.arange(len(self))
        positive = (self.labels > 0) | (self.task == "type")
        taken = np.flatnonzero(
            draw_samples(
                self.rules, epoch, self.draws, positive, self.inferred, self.interaction_groups,
                self.group_sizes, self.frames, self.groups,
            )
        )  # fmt: skip
        return taken[neighbouring_order(self.frames[taken], self.left[taken], self.right[taken])]

    def select(self, samples: np.ndarray) -> "JRDBPairDataset":
        """The same people and frames with these samples only, in this order; a sample may be taken twice.

        Nothing is drawn from them any more.
        """
        chosen = copy.copy(self)
        chosen.sampled = False
        for name in ("geometry", "types", "labels", "inferred", "ambiguous", "left", "right", "frames"):
            setattr(chosen, name, getattr(self, name)[samples])
        return chosen

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """A collated batch of N samples and their P people, each person once.

        crops (P, 3, H, W) uint8 (only with pixels), left, right (N,) int64 into the crops, geometry (N, G)
        float32, labels (N,), indices (N,), frames (N,), persons (P,) int64 person rows.
        """
        indices = np.asarray(indices)
        persons, place = np.unique(np.r_[self.left[indices], self.right[indices]], return_inverse=True)
        place = place.reshape(2, len(indices))
        batch = {
            "left": place[0],
            "right": place[1],
            "geometry": self.geometry[indices],
            "labels": self.labels[indices],
            "indices": indices,
            "frames": self.frames[indices],
            "persons": persons,
        }
        if self.crops is not None:
            batch["crops"] = self.crops[self.crop_rows[persons]]
        return {key: torch.from_numpy(np.ascontiguousarray(values)) for key, values in batch.items()}

    def look(self, sample: int) -> list[np.ndarray]:
        """Pictures of a pair: the two crops, where there are some, and its boxes in the panorama.

        The left person's box is orange, the right one's blue, everybody else's grey.
        """
        (width, height), pair = self.pano_size, (self.left[sample], self.right[sample])
        shrink = max(1, width / 940)
        picture = Image.new("RGB", (int(width / shrink), int(height / shrink)), (235, 235, 235))
        draw, styles = ImageDraw.Draw(picture), zip(pair, ("#D55E00", "#0072B2"), strict=True)
        others = np.flatnonzero(self.people_frames == self.frames[sample])
        for person, colour in (dict.fromkeys(others, "grey") | dict(styles)).items():
            x, y, w, h = self.boxes[person] / shrink
            for shift in (0, -picture.width):  # a box may run over the right edge
                draw.rectangle((x + shift, y, x + w + shift, y + h), outline=colour, width=2)
        crops = [] if self.crops is None else [self.crops[self.crop_rows[k]].transpose(1, 2, 0) for k in pair]
        return [*map(np.ascontiguousarray, crops), np.asarray(picture)]

    def images_needed(self, data_path: Path | str) -> tuple[list[Path], np.ndarray, np.ndarray, np.ndarray]:
        """Images (K) that samples are cut from, whether each is there, people per image (K), person rows."""
        persons = np.unique(np.r_[self.left, self.right])
        frames, counts = np.unique(self.people_frames[persons], return_counts=True)
        folder = Path(data_path) / IMAGE_FOLDER
        paths = [folder / self.sequences[self.frame_sequences[f]] / str(self.frame_keys[f]) for f in frames]
        return paths, self.image_found[frames], counts, persons

    def find_problems(self, data_path: Path | str, problems: Problems, decode: bool = False) -> None:
        """Gather the images that are missing and, with `decode`, damaged or of another size."""
        paths, found, *_ = self.images_needed(data_path)
        for path, there in zip(paths, found, strict=True):
            name = path.relative_to(Path(data_path) / IMAGE_FOLDER)
            if not there:
                what = f"missing images of the {self.name} split, which needs {len(paths)}"
                remedy = "add them, or pass --features geometry, which needs none"
                problems.add(what, remedy, str(name))
            elif decode:
                try:
                    height, width = read_image(path).shape[:2]
                except DataError as error:
                    problems.add("an image can not be read", "copy it again, or remove its frame",
                                 str(error).splitlines()[0])  # fmt: skip
                    continue
                if (width, height) != self.pano_size:
                    what = f"an image of another size than {self.pano_size[0]}x{self.pano_size[1]}"
                    remedy = "boxes are in pixels: all frames need the size that was annotated"
                    problems.add(what, remedy, f"{name}: {width}x{height}")

    def load_crops(self, data_path: Path | str, image_size: tuple[int, int], **cache: object) -> None:
        """Cut and cache the people that samples use. image_size is (H, W)."""
        paths, _, counts, persons = self.images_needed(data_path)
        boxes = np.split(self.boxes[persons], np.cumsum(counts)[:-1])
        self.crop_rows = np.full(len(self.boxes), -1)
        self.crop_rows[persons] = np.arange(len(persons))
        self.crops = crop_cache(paths, boxes, tuple(image_size), self.pano_size, **cache)
