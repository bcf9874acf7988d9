"""What the data looks like before anything is trained on it, read with the readers that training uses.

    python -m datasets.preview jrdb                                         the built-in sample
    python -m datasets.preview anovox --data_path ANOVOX
    python -m datasets.preview ultrasound --data_path ULTRASOUND

jrdb: three annotated frames of the first sequence with images, as OUTPUT_DIR/preview_jrdb_SEQUENCE_FRAME.png:
boxes with ids (grey: in no annotated pair), annotated pairs by type, social groups as bars below, people on
the seam on both ends. anovox: camera and scan of up to 12 scenarios, anomalies red, a picture each.
ultrasound: images from the youngest to the oldest.
"""

import argparse
from pathlib import Path

import numpy as np

from datasets.anovox.files import find_scenarios
from datasets.anovox.frame import ANOMALY_IDS, Frame
from datasets.anovox.palettes import find_palette
from datasets.images import read_image
from datasets.jrdb.classes import INTERACTION_CLASSES
from datasets.jrdb.labels import IMAGE_FOLDER, Sequence, read_sequences
from datasets.jrdb.splits import list_sequences
from datasets.samples import KINDS, ensure_sample
from datasets.ultrasound.dataset import find_sources, read_images
from datasets.ultrasound.flags import data_arguments
from datasets.ultrasound.problems import AgeProblems
from utils.plotting.age import plot_sheet
from utils.plotting.anomaly import plot_frame
from utils.plotting.panorama import draw_panorama, save_panorama
from utils.run import arguments
from utils.run.errors import DataError
from utils.run.log import start_log
from utils.run.script import run_script


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = arguments.ScriptParser("python -m datasets.preview", __doc__)
    add = parser.add_argument
    add("data_set", choices=KINDS, help="which data set")
    add("--data_path", help="its folder; default: the built-in sample")
    add("--output_dir", default="visualizations", help="where the pictures go")
    add("--anomaly_ids", type=arguments.non_negative_int, nargs="+", default=ANOMALY_IDS, metavar="ID",
        help="anovox: semantic classes that are anomalies")  # fmt: skip
    return parser.parse_args(parser.typed(argv))


def preview_jrdb(data_path: Path, output_dir: Path) -> list[Path]:
    """Draw three frames of the first sequence with images, from its first to its last; returns the pictures.
    DataError where no labelled frame has an image."""
    sequences = (read_sequences([path], data_path)[0] for path in list_sequences(data_path).values())
    read = next((sequence for sequence in sequences if sequence.image_found.any()), None)
    if read is None:
        what = "no image of a labelled frame of any sequence"
        remedy = "add images named as the frames in the label files, such as 000015.jpg"
        raise DataError(f"{data_path / IMAGE_FOLDER}: {what}\n  {remedy}")
    pictured, written = np.flatnonzero(read.image_found), []
    for frame in np.unique(pictured[np.linspace(0, len(pictured) - 1, 3).round().astype(int)]):
        picture = draw_frame(read, frame, data_path / IMAGE_FOLDER / read.name / read.keys[frame])
        written.append(output_dir / f"preview_jrdb_{read.name}_{Path(read.keys[frame]).stem}.png")
        save_panorama(picture, written[-1])
    return written


def draw_frame(sequence: Sequence, frame: int, image_path: Path) -> np.ndarray:
    """The picture of one annotated frame."""
    first, last = sequence.starts[frame : frame + 2]
    mine = (sequence.pairs[:, 0] >= first) & (sequence.pairs[:, 0] < last)
    pairs, types, boxes = sequence.pairs[mine] - first, sequence.types[mine], sequence.boxes[first:last]
    on_seam = int((boxes[:, 0] + boxes[:, 2] > sequence.width).sum())
    short = [name.removesuffix(" together") for name in INTERACTION_CLASSES]
    ids = [sequence.track_names[t].removeprefix("pedestrian:") for t in sequence.tracks[first:last]]
    found = f"{last - first} people, {on_seam} on the seam, {len(pairs)} annotated pairs"
    return draw_panorama(
        read_image(image_path), boxes, ids, pairs=pairs, kinds=types, kind_names=INTERACTION_CLASSES,
        texts=[short[k] if k >= 0 else "" for k in types], groups=sequence.social_groups[first:last],
        title=f"{sequence.name} {sequence.keys[frame]}: {found}",
    )  # fmt: skip


def preview_anovox(
    data_path: Path, output_dir: Path, anomaly_ids: tuple[int, ...] = ANOMALY_IDS
) -> list[Path]:
    """The middle frames of up to 12 scenarios: camera and scan from above, anomalies red."""
    sensors = ("image", "points", "semantic_image", "semantic_points")
    scenarios = find_scenarios(data_path)
    coding = (find_palette(scenarios, anomaly_ids), anomaly_ids)
    numbers = [scenario.frames_with(sensors) for scenario in scenarios]
    there = [Frame(scenario, frames[len(frames) // 2], coding)
             for scenario, frames in zip(scenarios, numbers, strict=True) if frames]  # fmt: skip
    if not there:
        raise DataError(f"{data_path}: no scenario with images, points and both semantic files of one frame")
    written = []
    for k in np.unique(np.linspace(0, len(there) - 1, 12).round().astype(int)):
        (points, truth), scenario = there[k].true_points(), there[k].scenario
        name = f"{scenario.name.removeprefix('Scenario_')}_{there[k].number}"
        written.append(output_dir / f"preview_anovox_{name}.png")
        heat, title = there[k].true_pixels() == 1, f"{scenario.town} {name}: where anomalies are"
        plot_frame(there[k].image(), heat, points, truth == 1, title, written[-1])
    return written


def preview_ultrasound(data_path: Path, output_dir: Path) -> list[Path]:
    """Images of up to 24 people of each muscle and cohort, from the youngest to the oldest."""
    written = []
    for folder in sorted(data_path.glob("**/Images")):
        args = data_arguments(cohort=folder.parent.name.lower())
        images, _ = read_images(find_sources(folder, args), AgeProblems(), args)
        people = images.drop_duplicates("subject").sort_values("age")
        if len(people):
            people = people.iloc[np.unique(np.linspace(0, len(people) - 1, 24).round().astype(int))]
            pixels = [read_image(path, "L") for path in people.path]
            names = [path.stem for path in people.path]
            kind = f"{folder.parent.parent.name}_{folder.parent.name}"
            written.append(output_dir / f"preview_ultrasound_{kind}.png")
            plot_sheet(pixels, names, people.age.tolist(), "years", written[-1])
    if not written:
        raise DataError(f"{data_path}: no images in MUSCLE/COHORT/Images with an age")
    return written


def draw(data_set: str, data_path: Path, output_dir: Path, **options) -> None:
    """Write the pictures of a data set and print their names."""
    output_dir.mkdir(parents=True, exist_ok=True)
    preview = {"jrdb": preview_jrdb, "anovox": preview_anovox, "ultrasound": preview_ultrasound}[data_set]
    for path in preview(data_path, output_dir, **options):
        print(path)


def main(args: argparse.Namespace) -> None:
    start_log(None)
    data_path = args.data_path or ensure_sample(args.data_set, f"data/sample_{args.data_set}")
    options = {"anomaly_ids": tuple(args.anomaly_ids)} if args.data_set == "anovox" else {}
    draw(args.data_set, Path(data_path), Path(args.output_dir), **options)


if __name__ == "__main__":
    run_script(main, parse_args())
