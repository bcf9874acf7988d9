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
from datasets.jrdb.pairs import PairRules
from prediction.trained import Trained
from utils.metrics.calibration import calibrated, log_odds, sigmoid
from utils.metrics.interaction import find_groups
from utils.plotting.panorama import draw_panorama, save_panorama
from utils.report.results import write_table
from utils.run.errors import CommandError, DataError
from utils.run.log import LOG
from utils.training.device import move


def predict_interactions(trained: Trained, args: argparse.Namespace) -> None:
    """Score every pair in range of every frame; of frames without an image only where the model needs
    none."""
    sequences, folders = read_people(Path(args.input), args.boxes)
    dataset = pairs_in_range(trained, sequences)
    pixels = trained.model.person is not None
    pictured = np.flatnonzero(dataset.image_found)
    frames = len(dataset.frame_keys)
    if frames > len(pictured):
        rest = "they serve as the past of the others" if pixels else "no picture of them"
        LOG.warning(f"{frames - len(pictured)} of {frames} frames have boxes but no image: {rest}")
    if pixels and not len(pictured):
        raise DataError(
            f"{args.input}: no frame with boxes has an image\n  expected: {folders[0]}/000015.jpg"
        )
    drawn = pictured[
        np.linspace(0, len(pictured) - 1, min(args.max_pictures, len(pictured))).round().astype(int)
    ]
    begin = np.searchsorted(dataset.frames, np.arange(frames + 1))
    p_interaction = np.full(len(dataset), np.nan)
    p_types = np.full((len(dataset), len(INTERACTION_CLASSES)), np.nan)
    for frame in tqdm(range(frames), desc="frames", disable=None):
        if pixels and not dataset.image_found[frame]:
            continue
        number, key = dataset.frame_sequences[frame], dataset.frame_keys[frame]
        needed = pixels or frame in drawn
        image = read_panorama(folders[number] / key, sequences[number]) if needed else None
        samples = np.arange(begin[frame], begin[frame + 1])
        if len(samples):
            p_interaction[samples], p_types[samples] = score_pairs(trained, dataset, samples, image)
        if frame in drawn:
            name = f"{sequences[number].name}_" if len(sequences) > 1 else ""
            picture = draw_frame(trained, dataset, frame, image, p_interaction[samples], p_types[samples])
            save_panorama(picture, Path(args.output) / f"{name}{Path(key).stem}.png")
    scored = np.flatnonzero(np.isfinite(p_interaction))
    columns = prediction_columns(trained, dataset.select(scored), p_interaction[scored], p_types[scored])
    if len(sequences) == 1:
        del columns["sequence"]
    write_table(Path(args.output) / "predictions.csv", columns)
    LOG.info(
        f"{len(scored)} pairs in range scored, {int((columns['type'] != 'none').sum())} interact "
        f"(p >= {trained.state['threshold']:.4g}); predictions.csv and {len(drawn)} pictures in {args.output}"
    )


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


def pairs_in_range(trained: Trained, sequences: list[Sequence]) -> JRDBPairDataset:
    """Every pair within the distance limit of the training, with its features."""
    names = ("distance_multiplier", "distance_norm", "history_seconds")
    rules = PairRules(**{name: getattr(trained.args, name) for name in names})
    return JRDBPairDataset("input", sequences, rules)


@torch.no_grad()
def score_pairs(
    trained: Trained, dataset: JRDBPairDataset, samples: np.ndarray, image: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """p_interaction (N,) and type probabilities (N, 5) of the samples of one frame, the panorama `image`."""
    batch = dataset.__getitems__(samples)
    if trained.model.person is not None:
        boxes = dataset.boxes[batch["persons"].numpy()]
        batch["crops"] = torch.from_numpy(crop_people(image, boxes, tuple(trained.args.image_size)))
    return probabilities(trained, *trained.model.both_stages(move(batch, trained.device)))


def probabilities(trained: Trained, who: torch.Tensor, how: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """p_interaction (N,) and type probabilities (N, 5) of both stages' logits, by the run's scales."""
    odds, state = log_odds(who.cpu().numpy())[:, 1], trained.state
    p_types = softmax(how.double().cpu().numpy() / state.get("temperature", 1.0), axis=1)
    return sigmoid(calibrated(odds, **state["calibration"])), p_types


def prediction_columns(
    trained: Trained, dataset: JRDBPairDataset, p_interaction: np.ndarray, p_types: np.ndarray
) -> dict[str, np.ndarray]:
    """The columns of predictions.csv: p_interaction (N,) and p_types (N, 5) of the samples."""
    interacts, typed = p_interaction >= trained.state["threshold"], trained.task["task"] == "stage2"
    kind = np.array(INTERACTION_CLASSES)[p_types.argmax(axis=1)] if typed else "interaction"
    who = dataset.pair_columns()
    return {
        "sequence": who["sequence"],
        "frame": who["frame"],
        "id_1": who["id_left"],
        "id_2": who["id_right"],
        "p_interaction": p_interaction.round(6),
        "type": np.where(interacts, kind, "none"),
        "p_type": np.where(interacts & typed, p_types.max(axis=1).round(6), np.nan),
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
    trained: Trained,
    dataset: JRDBPairDataset,
    frame: int,
    image: np.ndarray,
    p_interaction: np.ndarray,
    p_types: np.ndarray,
) -> np.ndarray:
    """The panorama with everybody, the pairs that interact and the groups they form.

    p_interaction (n,) and p_types (n, 5) of the frame's samples, in their order.
    """
    threshold = trained.state["threshold"]
    people, samples = np.flatnonzero(dataset.people_frames == frame), dataset.frames == frame
    pairs = np.stack([dataset.left[samples], dataset.right[samples]], axis=1)  # (n, 2)
    pairs = np.searchsorted(people, pairs)  # rows of `people`
    shown = p_interaction >= threshold
    if trained.task["task"] == "stage2":
        kinds, names, beside = p_types[shown].argmax(axis=1), INTERACTION_CLASSES, "its type and the type's"
        texts = [
            f"{names[k].removesuffix(' together')} {p[k]:.2f}"
            for k, p in zip(kinds, p_types[shown], strict=True)
        ]
    else:
        kinds, names, beside = np.full(shown.sum(), -1), (), "the interaction's"
        texts = [f"{p:.2f}" for p in p_interaction[shown]]
    return draw_panorama(
        image,
        dataset.boxes[people],
        [name.removeprefix("pedestrian:") for name in dataset.person_ids[people]],
        pairs=pairs[shown],
        kinds=kinds,
        texts=texts,
        kind_names=names,
        groups=find_groups(len(people), pairs, p_interaction, threshold)[0],
        title=f"{dataset.sequences[dataset.frame_sequences[frame]]} {dataset.frame_keys[frame]}: "
        f"{len(people)} people, predicted: {shown.sum()} of {len(pairs)} pairs in range interact "
        f"(p >= {threshold:.3f}); beside a line: {beside} probability",
    )
