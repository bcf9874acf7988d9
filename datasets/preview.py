"""Draw the annotations of JRDB before training on them, read by the same code as in training.

    python -m datasets.preview                                              the built-in sample
    python -m datasets.preview --data_path JRDB

Writes three annotated frames of the first sequence with images, OUTPUT_DIR/preview_jrdb_SEQUENCE_FRAME.png:
boxes with ids and social groups, "7 g4" (grey: in no annotated pair), annotated pairs by type. People on the
seam of the panorama appear at both ends.
"""

import argparse
from pathlib import Path

import numpy as np

from datasets.images import read_image
from datasets.jrdb.classes import INTERACTION_CLASSES
from datasets.jrdb.flags import SAMPLE, LabelRules, add_label_arguments, given
from datasets.jrdb.labels import IMAGE_FOLDER, Sequence, read_sequences
from datasets.jrdb.splits import list_sequences
from datasets.samples import ensure_sample
from utils.plotting.panorama import draw_panorama, save_panorama
from utils.run import arguments
from utils.run.errors import DataError
from utils.run.log import start_log
from utils.run.script import run_script


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = arguments.ScriptParser("python -m datasets.preview", __doc__)
    add = parser.add_argument
    add("--data_path", help="its folder; default: the built-in sample")
    add("--output_dir", default="visualizations", help="where the pictures go")
    add_label_arguments(add)
    return parser.parse_args(parser.typed(argv))


def draw(data_path: Path, output_dir: Path, rules: LabelRules | None = None) -> None:
    """Draw three frames of the first sequence with images, from its first to its last, and print the paths of
    the pictures. Raises DataError if no labelled frame has an image."""
    sequences = (read_sequences([path], data_path, rules)[0] for path in list_sequences(data_path).values())
    read = next((sequence for sequence in sequences if sequence.image_found.any()), None)
    if read is None:
        what = "no labelled frame of any sequence has an image"
        remedy = "add images with the names that the frames have in the label files, such as 000015.jpg"
        raise DataError(f"{data_path / IMAGE_FOLDER}: {what}\n  {remedy}")
    output_dir.mkdir(parents=True, exist_ok=True)
    pictured = np.flatnonzero(read.image_found)
    for frame in np.unique(pictured[np.linspace(0, len(pictured) - 1, 3).round().astype(int)]):
        picture = draw_frame(read, frame, data_path / IMAGE_FOLDER / read.name / read.keys[frame])
        path = output_dir / f"preview_jrdb_{read.name}_{Path(read.keys[frame]).stem}.png"
        save_panorama(picture, path)
        print(path)


def draw_frame(sequence: Sequence, frame: int, image_path: Path) -> np.ndarray:
    """The picture of one annotated frame."""
    first, last = sequence.starts[frame : frame + 2]
    here = (sequence.pairs[:, 0] >= first) & (sequence.pairs[:, 0] < last)
    pairs, types, boxes = sequence.pairs[here] - first, sequence.types[here], sequence.boxes[first:last]
    on_seam = int((boxes[:, 0] + boxes[:, 2] > sequence.width).sum())
    short = [name.removesuffix(" together") for name in INTERACTION_CLASSES]
    ids = [sequence.track_names[t].removeprefix("pedestrian:") for t in sequence.tracks[first:last]]
    found = f"{last - first} people, {on_seam} on the seam, {len(pairs)} annotated pairs"
    return draw_panorama(
        read_image(image_path), boxes, ids, pairs=pairs, kinds=types, kind_names=INTERACTION_CLASSES,
        texts=[short[k] if k >= 0 else "" for k in types], groups=sequence.social_groups[first:last],
        title=f"{sequence.name} {sequence.keys[frame]}: {found}",
    )  # fmt: skip


def main(args: argparse.Namespace) -> None:
    start_log(None)
    data_path = Path(args.data_path or ensure_sample("jrdb", SAMPLE))
    draw(data_path, Path(args.output_dir), LabelRules(**given(args, LabelRules)))


if __name__ == "__main__":
    run_script(main, parse_args())
