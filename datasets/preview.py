"""What the data looks like before anything is trained on it: frames with their annotations drawn on them.

    python -m datasets.preview jrdb                                         the built-in sample
    python -m datasets.preview jrdb --data_path JRDB --sequence bytes-cafe-2019-02-07_0 --frames 0

Boxes with ids (grey: in no annotated pair), annotated pairs by type, social groups as bars below, people on
the seam on both ends. Written to OUTPUT_DIR/preview_jrdb_SEQUENCE_FRAME.png.
"""

import argparse
from pathlib import Path

import numpy as np

from datasets.images import read_image
from datasets.jrdb.labels import IMAGE_FOLDER, INTERACTION_CLASSES, Sequence, list_sequences, read_sequence
from datasets.samples import ensure_sample
from utils.plotting.panorama import draw_panorama, save_panorama
from utils.run import arguments
from utils.run.errors import CommandError, DataError
from utils.run.script import run_script


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = arguments.ScriptParser("python -m datasets.preview", __doc__)
    add = parser.add_argument
    add("data_set", choices=["jrdb"], help="which data set")
    add("--data_path", help="its folder; default: the built-in sample")
    add("--sequence", help="a sequence by name; default: the first one with images")
    add(
        "--frames",
        type=arguments.non_negative_int,
        nargs="+",
        metavar="K",
        help="frame numbers as in the file names; default: three over the sequence",
    )
    add("--output_dir", default="visualizations", help="where the pictures go")
    return parser.parse_args(parser.typed(argv))


def preview_jrdb(
    data_path: Path, sequence: str | None, frames: list[int] | None, output_dir: Path
) -> list[Path]:
    """Draw frames of one sequence; returns the pictures written.

    CommandError for a sequence or frame that is not there, DataError for a sequence without images.
    """
    files = list_sequences(data_path)
    if sequence is not None and sequence not in files:
        raise CommandError(f"--sequence {sequence}: not in {data_path}\n  there are: {', '.join(files)}")
    for path in [files[sequence]] if sequence else files.values():
        read = read_sequence(path, data_path)
        if read.image_found.any():
            break
    else:
        raise DataError(
            f"{data_path / IMAGE_FOLDER}: no image of a labelled frame of {sequence or 'any sequence'}\n"
            "  add images named as the frames in the label files, such as 000015.jpg"
        )
    written = []
    for frame in choose_frames(read, frames):
        picture = draw_frame(read, frame, data_path / IMAGE_FOLDER / read.name / read.keys[frame])
        written.append(output_dir / f"preview_jrdb_{read.name}_{Path(read.keys[frame]).stem}.png")
        save_panorama(picture, written[-1])
    return written


def choose_frames(sequence: Sequence, numbers: list[int] | None) -> list[int]:
    """Frame indices of these frame numbers; None: three with images, from the first to the last."""
    with_image = np.flatnonzero(sequence.image_found)
    if numbers is None:
        return sorted(
            {int(with_image[k]) for k in np.linspace(0, len(with_image) - 1, 3).round().astype(int)}
        )
    there = sequence.times[with_image]
    absent = [number for number in numbers if number not in there]
    if absent:
        raise CommandError(
            f"--frames {absent[0]}: no labelled frame of {sequence.name} with an image\n"
            f"  there are {len(there)}: {', '.join(map(str, there[:12]))}{' ...' if len(there) > 12 else ''}"
        )
    return [int(np.flatnonzero(sequence.times == number)[0]) for number in numbers]


def draw_frame(sequence: Sequence, frame: int, image_path: Path) -> np.ndarray:
    """The picture of one annotated frame."""
    first, last = sequence.starts[frame : frame + 2]
    mine = (sequence.pairs[:, 0] >= first) & (sequence.pairs[:, 0] < last)
    pairs, types = sequence.pairs[mine] - first, sequence.types[mine]
    boxes = sequence.boxes[first:last]
    on_seam = int((boxes[:, 0] + boxes[:, 2] > sequence.width).sum())
    short = [name.removesuffix(" together") for name in INTERACTION_CLASSES]
    return draw_panorama(
        read_image(image_path),
        boxes,
        [sequence.track_names[t].removeprefix("pedestrian:") for t in sequence.tracks[first:last]],
        pairs=pairs,
        kinds=types,
        texts=[short[k] if k >= 0 else "" for k in types],
        kind_names=INTERACTION_CLASSES,
        groups=sequence.groups[first:last],
        title=f"{sequence.name} {sequence.keys[frame]}: {last - first} people, {on_seam} on the seam, "
        f"{len(pairs)} annotated pairs",
    )


def main(args: argparse.Namespace) -> None:
    data_path = args.data_path or ensure_sample("jrdb", "data/sample_jrdb")
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    for path in preview_jrdb(Path(data_path), args.sequence, args.frames, output_dir):
        print(path)


if __name__ == "__main__":
    run_script(main, parse_args())
