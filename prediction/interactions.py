"""Predict who interacts, how, and in which groups, on JRDB panoramas without annotations.

predictions.csv   one row per pair within the distance limit used in training
groups.csv        one row per person; groups are numbered from 1 in every frame
det_group.txt     keyframes (frame numbers 15, 30, ...) in the format of JRDB-Act's toolkit
skipped.csv       one row per frame whose image cannot be used, with the reason; only if there are any
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import torch

from datasets.jrdb.boxes import read_boxes
from datasets.jrdb.classes import INTERACTION_CLASSES
from datasets.jrdb.crops import crop_people, read_panorama
from datasets.jrdb.dataset import JRDBPairDataset
from datasets.jrdb.labels import Sequence
from datasets.jrdb.load import join_pairs, tell_motion, tell_shape
from datasets.jrdb.pairs import PairRules
from prediction.skipped import skipped_table
from prediction.trained import Predicted, Trained, spread
from utils.metrics.groups import find_clusters, number_groups
from utils.metrics.interaction import pair_probabilities
from utils.metrics.jrdb_act import keyframe_rows, rows_text
from utils.plotting.panorama import draw_panorama, save_panorama
from utils.run.errors import CommandError, DataError, counted
from utils.run.folder import read_record, write_text
from utils.run.log import LOG, progress
from utils.training.device import autocast, move


def predict(trained: Trained, args: argparse.Namespace) -> Predicted:
    """Score all pairs in range; frames without an image are scored only if the model uses no pixels. `show`
    writes det_group.txt and draws frames."""
    pixels = any(member.args.features != "geometry" for member in trained.members)
    folder = check_input(args, pixels)
    args.frame_rate = args.frame_rate or trained.args.frame_rate
    sequences, folders = read_boxes(folder, Path(args.boxes) if args.boxes else None, args)
    if args.output is not None and Path(args.output).resolve() in [path.resolve() for path in folders]:
        raise CommandError(f"--output {args.output}: contains the images, which pictures could overwrite")
    dataset = pairs_in_range(trained, sequences)
    tell_motion(dataset)
    if (config := trained.path.parent / "config.json").is_file():
        tell_shape(dataset, read_record(config, "dataset")["dataset"])
    trained.tell_known(dataset.sequences)
    pictured, frames = np.flatnonzero(dataset.image_found), len(dataset.frame_keys)
    if frames > len(pictured):
        effect = "they only serve as the past of others" if pixels else "they are not drawn"
        LOG.warning(f"{frames - len(pictured)} of {frames} frames have boxes but no image: {effect}")
    if pixels and not len(pictured):
        raise DataError(f"{args.input}: no frame with boxes has an image, such as {folders[0]}/000015.jpg")

    paths = [folders[s] / key for s, key in zip(dataset.frame_sequences, dataset.frame_keys, strict=True)]

    def open_image(frame: int) -> np.ndarray:
        return read_panorama(paths[frame], dataset.pano_sizes[dataset.frame_sequences[frame]])

    scored = pictured if pixels else np.arange(frames)
    scored_pairs, pairs, skipped = score_frames(trained, dataset, scored, open_image if pixels else None)
    people = np.flatnonzero(np.isin(dataset.people_frames, np.setdiff1d(scored, list(skipped))))
    threshold = trained.state.get("stage1_threshold", trained.state["threshold"])
    clusters = find_clusters(*scored_pairs.people_and_pairs(), pairs["p_interaction"].to_numpy(), threshold)
    groups = number_groups(dataset.people_frames, clusters)
    names = np.array(dataset.sequences)[dataset.frame_sequences]
    tables = {
        "predictions": pairs.round({"p_interaction": 6, "p_type": 6}),
        "groups": list_people(dataset, groups, people),
        "skipped": skipped_table({"sequence": names, "frame": dataset.frame_keys}, skipped, paths),
    }
    if len(sequences) == 1:
        tables = {name: table.drop(columns="sequence") for name, table in tables.items()}

    def show(output: Path) -> None:
        rows = keyframe_rows(dataset, groups, people, dataset.sequences)
        write_text(output / "det_group.txt", rows_text(rows))
        usable, drawn = np.setdiff1d(pictured, list(skipped)), 0
        for frame in progress(usable[spread(len(usable), args.max_pictures)].tolist(), "pictures"):
            try:
                image = open_image(frame)
            except DataError as error:  # a geometry model opens its images only here
                LOG.warning(f"no picture: {str(error).splitlines()[0]}")
                continue
            picture = draw_frame(trained, scored_pairs, frame, image, pairs, groups)
            sequence = f"{names[frame]}_".replace("/", "_") if len(sequences) > 1 else ""  # may be a path
            save_panorama(picture, output / f"{sequence}{Path(dataset.frame_keys[frame]).stem}.png")
            drawn += 1
        scores = f"{len(pairs)} pairs in range scored, {(pairs['type'] != 'none').sum()} interact"
        files = f"predictions.csv, groups.csv, det_group.txt ({len(rows)} people on keyframes)"
        limit = f"p >= {trained.state['threshold']:.4g}"
        LOG.info(f"{scores} ({limit}); {files} and {counted(drawn, 'pictures')} in {output}")

    return tables, (len(scored), "frames"), show


def check_input(args: argparse.Namespace, pixels: bool) -> Path:
    """The folder of the images or, without --input, a name for the sequence of --boxes."""
    if args.input is None and pixels:
        raise CommandError("--input is required: this run uses pixels; pass the folder of the images")
    if args.input is None:
        return Path(args.boxes).with_suffix("")
    folder = Path(args.input)
    if folder.is_file() or (not folder.is_dir() and (not args.boxes or pixels)):
        what = "a file" if folder.is_file() else "no such folder"
        remedy = "pass a JRDB folder or, with --boxes, the folder of the images"
        raise CommandError(f"--input {folder}: {what}\n  {remedy}")
    return folder


def pairs_in_range(trained: Trained, sequences: list[Sequence]) -> JRDBPairDataset:
    """All pairs within the distance limit used in training, with their features."""
    names = ("distance_multiplier", "distance_norm", "history_seconds", "whole_past")
    rules = PairRules(**{name: getattr(trained.args, name) for name in names})
    return join_pairs("input", sequences, rules)


def score_frames(
    trained: Trained, dataset: JRDBPairDataset, frames: np.ndarray, open_image: Callable | None
) -> tuple[JRDBPairDataset, pandas.DataFrame, dict[int, str]]:
    """The pairs of these frames, their scores (predictions.csv, not yet rounded) and {frame: why} of frames
    that are skipped because their image cannot be used. Without `open_image` no pixels are read."""
    skipped = {}
    p_interaction = np.full(len(dataset), np.nan)
    p_types = np.full((len(dataset), len(INTERACTION_CLASSES)), np.nan)  # stays NaN for stage 1
    for frame in progress(frames.tolist(), "frames"):
        samples = np.arange(*np.searchsorted(dataset.frames, [frame, frame + 1]))
        try:
            image = open_image(frame) if open_image else None
        except DataError as error:
            skipped[frame] = str(error).splitlines()[0]
            continue
        if len(samples):
            p_interaction[samples], p_types[samples] = score_pairs(trained, dataset, samples, image)
    known = np.flatnonzero(np.isfinite(p_interaction))
    dataset, p_interaction, p_types = dataset.select(known), p_interaction[known], p_types[known]
    pairs = pandas.DataFrame(dataset.pair_columns()).drop(columns="label")
    pairs["p_interaction"] = p_interaction
    interacts, typed = p_interaction >= trained.state["threshold"], trained.task["task"] == "stage2"
    kind = np.array(INTERACTION_CLASSES)[p_types.argmax(axis=1)] if typed else "interaction"
    pairs["type"] = np.where(interacts, kind, "none")
    pairs["p_type"] = np.where(interacts, p_types.max(axis=1), np.nan)
    return dataset, pairs, skipped


@torch.no_grad()
def score_pairs(
    trained: Trained, dataset: JRDBPairDataset, samples: np.ndarray, image: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | float]:
    """p_interaction (N,) and type probabilities (N, 5), NaN for stage 1, of the samples of one frame; means
    over several runs."""
    scores = []
    for member in trained.members:
        batch = dataset.__getitems__(samples)
        if image is not None:
            boxes = dataset.boxes[batch["persons"].numpy()]
            batch["crops"] = torch.from_numpy(crop_people(image, boxes, tuple(member.args.image_size)))
        batch, how = move(batch, member.device), None
        with autocast(member.device, member.args.amp):
            if member.task["task"] == "stage2":
                how, who = member.model(batch, both=True)
                how = how.float().cpu().numpy()
            else:
                who = member.model(batch)
        scores.append(pair_probabilities(who.float().cpu().numpy(), how, member.state))
    who, how = zip(*scores, strict=True)
    return np.mean(who, axis=0), np.mean(how, axis=0)


def list_people(dataset: JRDBPairDataset, groups: np.ndarray, people: np.ndarray) -> pandas.DataFrame:
    """A row for each of these `people`: groups.csv. groups: of everybody (R,)."""
    frames = dataset.people_frames[people]
    persons = pandas.DataFrame({
        "sequence": np.array(dataset.sequences)[dataset.frame_sequences[frames]],
        "frame": dataset.frame_keys[frames], "id": dataset.person_ids[people], "group": groups[people],
    })  # fmt: skip
    return persons.assign(size=persons.groupby([frames, "group"])["group"].transform("size"))


def draw_frame(
    trained: Trained, dataset: JRDBPairDataset, frame: int, image: np.ndarray, pairs: pandas.DataFrame,
    groups: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """The panorama with all people, interacting pairs and groups. pairs: of the data set's samples; groups
    (R,): of everybody."""
    people, samples = np.flatnonzero(dataset.people_frames == frame), np.flatnonzero(dataset.frames == frame)
    shown = samples[pairs["type"].to_numpy()[samples] != "none"]
    found = pairs.iloc[shown]
    if trained.task["task"] == "stage2":
        names, beside = INTERACTION_CLASSES, "its type and the type's"
        texts = found["type"].str.removesuffix(" together") + found["p_type"].map(" {:.2f}".format)
    else:
        names, beside = ("interaction",), "the interaction's"
        texts = found["p_interaction"].map("{:.2f}".format)
    ids = [name.removeprefix("pedestrian:") for name in dataset.person_ids[people]]
    return draw_panorama(
        image, dataset.boxes[people], ids, kinds=found["type"].map(names.index).to_numpy(int),
        pairs=np.searchsorted(people, dataset.people_and_pairs()[1][shown]),  # rows of `people`
        texts=texts.tolist(), kind_names=names, groups=groups[people],
        title=f"{dataset.sequences[dataset.frame_sequences[frame]]} {dataset.frame_keys[frame]}: "
        f"{len(people)} people, predicted: {len(shown)} of {len(samples)} pairs in range interact "
        f"(p >= {trained.state['threshold']:.3f}); beside a line: {beside} probability",
    )  # fmt: skip
