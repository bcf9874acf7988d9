"""Who interacts with whom, and how, on JRDB panoramas without annotations: by a stage 1 or stage 2 run."""

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from tqdm import tqdm

from datasets.images import read_image
from datasets.jrdb.boxes import read_box_table, without_annotations
from datasets.jrdb.crops import crop_people
from datasets.jrdb.dataset import JRDBPairDataset
from datasets.jrdb.labels import IMAGE_FOLDER, INTERACTION_CLASSES, Sequence, list_sequences, read_sequence
from datasets.jrdb.sampling import PairRules
from models.pairs import TwoStageInteractionClassifier
from prediction.trained import Trained
from utils.metrics.interaction import find_groups
from utils.plotting.panorama import draw_panorama, save_panorama
from utils.report.classification import write_table
from utils.run.errors import CommandError, DataError
from utils.run.log import LOG
from utils.training.device import move


class InteractionModel:
    """A stage 1 or stage 2 checkpoint: who interacts (at `threshold`) and, of stage 2, how."""

    def __init__(self, trained: Trained):
        options = trained.args
        self.has_types = trained.state["script"] == "train_stage2.py"
        self.model: TwoStageInteractionClassifier = trained.model
        self.device, self.threshold = trained.device, trained.state["threshold"]
        self.image_size = None if options.features == "geometry" else tuple(options.image_size)
        self.rules = PairRules(
            distance_multiplier=options.distance_multiplier,
            distance_norm=options.distance_norm,
            history_seconds=options.history_seconds,
        )

    @torch.no_grad()
    def score(
        self, dataset: JRDBPairDataset, samples: np.ndarray, image: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """p_interaction (N,) and type probabilities (N, 5) of the samples of one frame, whose panorama is
        `image`."""
        batch = dataset.__getitems__(samples)
        if self.image_size is not None:
            boxes = dataset.boxes[batch["persons"].numpy()]
            batch["crops"] = torch.from_numpy(crop_people(image, boxes, self.image_size))
        features = self.model.pair_features(move(batch, self.device))
        heads = self.model.stage1_head, self.model.stage2_head
        stage1, stage2 = (head(features).double().cpu().numpy() for head in heads)
        return softmax(stage1, axis=1)[:, 1], softmax(stage2, axis=1)


def read_people(folder: Path, boxes: str | None) -> tuple[list[Sequence], list[Path]]:
    """Sequences without annotations, and the folder of images of each."""
    if not folder.is_dir():
        raise CommandError(
            f"--input {folder}: no such folder\n  give a JRDB folder or, with --boxes, the images"
        )
    if boxes:
        return read_box_table(Path(boxes), folder)
    files = list_sequences(folder)
    sequences = [without_annotations(read_sequence(path, folder)) for path in files.values()]
    return sequences, [folder / IMAGE_FOLDER / name for name in files]


def predict_interactions(trained: Trained, args: argparse.Namespace) -> None:
    """Score every pair in range of every frame; of frames without an image only where the model needs
    none."""
    model = InteractionModel(trained)
    sequences, folders = read_people(Path(args.input), args.boxes)
    with_image = sum(int(sequence.image_found.sum()) for sequence in sequences)
    frames = sum(len(sequence.keys) for sequence in sequences)
    if frames > with_image:
        rest = "no picture of them" if model.image_size is None else "they serve as the past of the others"
        LOG.warning(f"{frames - with_image} of {frames} frames have boxes but no image: {rest}")
    if model.image_size is not None and not with_image:
        raise DataError(
            f"{args.input}: no frame with boxes has an image\n  expected: {folders[0]}/000015.jpg"
        )
    drawn = set(np.linspace(0, with_image - 1, min(args.max_pictures, with_image)).round().astype(int))
    tables, pictures, seen = [], 0, 0
    progress = tqdm(total=frames, desc="frames", disable=None)
    for sequence, folder in zip(sequences, folders, strict=True):
        dataset = JRDBPairDataset("input", [sequence], model.rules)
        begin = np.searchsorted(dataset.frames, np.arange(len(sequence.keys) + 1))
        p_interaction = np.full(len(dataset), np.nan)
        p_types = np.full((len(dataset), len(INTERACTION_CLASSES)), np.nan)
        for frame, found in enumerate(sequence.image_found):
            progress.update()
            draw = bool(found) and seen in drawn
            seen += int(found)
            if not found and model.image_size is not None:
                continue
            needed = draw or model.image_size is not None
            image = read_panorama(folder / sequence.keys[frame], sequence) if needed else None
            samples = np.arange(begin[frame], begin[frame + 1])
            if len(samples):
                p_interaction[samples], p_types[samples] = model.score(dataset, samples, image)
            if draw:
                name = f"{sequence.name}_" if len(sequences) > 1 else ""
                picture = draw_frame(model, dataset, frame, image, p_interaction[samples], p_types[samples])
                save_panorama(picture, Path(args.output) / f"{name}{Path(sequence.keys[frame]).stem}.png")
                pictures += 1
        tables.append(prediction_columns(model, dataset, p_interaction, p_types))
    progress.close()
    columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    if len(sequences) == 1:
        del columns["sequence"]
    write_table(Path(args.output) / "predictions.csv", columns)
    LOG.info(
        f"{len(columns['type'])} pairs in range scored, {int((columns['type'] != 'none').sum())} interact "
        f"(p >= {model.threshold:.4g}); predictions.csv and {pictures} pictures in {args.output}"
    )


def prediction_columns(
    model: InteractionModel, dataset: JRDBPairDataset, p_interaction: np.ndarray, p_types: np.ndarray
) -> dict[str, np.ndarray]:
    """The columns of predictions.csv: p_interaction (N,), NaN where not scored, and p_types (N, 5) of all
    samples."""
    scored = np.flatnonzero(np.isfinite(p_interaction))
    p_interaction, p_types = p_interaction[scored], p_types[scored]
    interacts = p_interaction >= model.threshold
    kind = np.array(INTERACTION_CLASSES)[p_types.argmax(axis=1)] if model.has_types else "interaction"
    who = dataset.select(scored).pair_columns()
    return {
        "sequence": who["sequence"],
        "frame": who["frame"],
        "id_1": who["id_left"],
        "id_2": who["id_right"],
        "p_interaction": p_interaction.round(6),
        "type": np.where(interacts, kind, "none"),
        "p_type": np.where(interacts & model.has_types, p_types.max(axis=1).round(6), np.nan),
    }


def read_panorama(path: Path, sequence: Sequence) -> np.ndarray:
    """The panorama (H, W, 3); DataError where it has not the size the boxes are given for."""
    image = read_image(path)
    if image.shape[:2] != (sequence.height, sequence.width):
        raise DataError(
            f"{path}: the panorama is {image.shape[1]}x{image.shape[0]} pixels, "
            f"{sequence.size_source} has {sequence.width}x{sequence.height}\n"
            "  boxes are in pixels: all frames need one size"
        )
    return image


def draw_frame(
    model: InteractionModel,
    dataset: JRDBPairDataset,
    frame: int,
    image: np.ndarray,
    p_interaction: np.ndarray,
    p_types: np.ndarray,
) -> np.ndarray:
    """The panorama with everybody, the pairs that interact and the groups they form.

    p_interaction (n,) and p_types (n, 5) of the frame's samples, in their order.
    """
    people, samples = np.flatnonzero(dataset.people_frames == frame), dataset.frames == frame
    pairs = np.stack([dataset.left[samples], dataset.right[samples]], axis=1)  # (n, 2)
    pairs = np.searchsorted(people, pairs)  # rows of `people`
    members, _ = find_groups(len(people), pairs, p_interaction, model.threshold)
    shown = p_interaction >= model.threshold
    kinds = p_types[shown].argmax(axis=1)
    short = [name.removesuffix(" together") for name in INTERACTION_CLASSES]
    texts = [f"{short[k]} {p:.2f}" for k, p in zip(kinds, p_types[shown].max(axis=1), strict=True)]
    beside = "its type and the type's probability"
    if not model.has_types:
        kinds, beside = np.full(len(kinds), -1), "the probability of interacting"
        texts = [f"{p:.2f}" for p in p_interaction[shown]]
    return draw_panorama(
        image,
        dataset.boxes[people],
        [name.removeprefix("pedestrian:") for name in dataset.person_ids[people]],
        pairs=pairs[shown],
        kinds=kinds,
        texts=texts,
        kind_names=INTERACTION_CLASSES if model.has_types else (),
        groups=members,
        title=f"{dataset.sequences[0]} {dataset.frame_keys[frame]}: {len(people)} people, predicted: "
        f"{len(kinds)} of {len(pairs)} pairs in range interact (p >= {model.threshold:.3f}); "
        f"beside a line: {beside}",
    )
