"""Apply a trained model to new files and write predictions.csv and pictures. Labels are not needed or used.

    python predict.py --run RUN --input JRDB --output OUT                     who interacts; boxes from labels
    python predict.py --run RUN --input IMAGES --boxes FILE --output OUT      boxes of a detector or tracker
    python predict.py --run RUN --input IMAGES --output OUT                   ages of a folder of images
    python predict.py --run RUN --input ANOVOX --output OUT                   alarm scores of AnoVox scenarios
    python predict.py --run RUN RUN RUN --input IMAGES --output OUT           the mean of several runs
    python predict.py --run RUN --export MODEL.pt2                            a program for torch.export.load

The run determines the task; docs/columns.md explains all columns.
JRDB (stage 1 or stage 2 run): one row per pair within the distance limit used in training; groups.csv with
everybody's group; det_group.txt for JRDB-Act's toolkit. `type` is "none" below the threshold; above it, a
stage 1 run says "interaction". Frame numbers (--frame_rate per second) tell how far back a pair's past lies.
Ages: one row per image; subjects.csv has the mean per subject, of a run with --visit_column per visit. The
true age lies between `low` and `high` with 90% confidence. AnoVox: one row per frame.
Unreadable files are listed in skipped.csv; the rest is predicted, and the exit code is 3.
"""

import argparse
from pathlib import Path

from prediction.flags import PREDICTING, add_reading_arguments
from utils.run import arguments
from utils.run.script import run_script

SCRIPT = "predict.py"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = arguments.ScriptParser(SCRIPT, __doc__)
    add = parser.add_argument
    # fmt: off
    add("--run", required=True, nargs="+", help="run folder (its best checkpoint is used) or a .pth file; "
        "several, such as folds, predict their mean")
    add("--input", help="JRDB folder with labels/ and images/; an image or a folder of images; AnoVox "
        "scenarios; optional with --boxes if the run uses geometry only")
    add("--boxes", metavar="FILE", help="JRDB: boxes of people, a file or folder of JRDB or COCO JSON, CSV, "
        "MOT or KITTI; default: the labels or detections in --input")
    add("--boxes_size", type=arguments.positive_int, nargs=2, metavar=("H", "W"),
        help="JRDB: size of the panorama that the boxes refer to, if it differs from the images'; "
        "1 1: boxes are fractions, 100 100: percentages")
    add("--frame_rate", type=arguments.positive_float,
        help="JRDB: frame numbers per second; default: that of the training")
    add("--skip_bad_boxes", action=argparse.BooleanOptionalAction, default=False,
        help="JRDB: leave out people whose box has no area or lies outside the panorama")
    add("--max_pictures", type=arguments.non_negative_int, default=100,
        help="number of frames to draw, evenly spread; of images on the sheet of ages (at most 24)")
    add("--explain", action=argparse.BooleanOptionalAction, default=False,
        help="ages: show beside each image on the sheet how much each pixel changes the age")
    add("--cache_limit_gb", type=arguments.positive_float,
        help="AnoVox: largest archive to unpack; default: the run's")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    written = parser.add_mutually_exclusive_group(required=True).add_argument
    written("--output", help="folder for the tables and pictures")
    written("--export", metavar="FILE.pt2", help="write the model as a torch.export program; reads no input")
    add("--debug", action=argparse.BooleanOptionalAction, default=False, help="show every traceback")
    # fmt: on
    add_reading_arguments(parser, PREDICTING)
    args = parser.parse_args(parser.typed(argv))
    given = [f"--{name}" for name in ("input", "boxes", *PREDICTING) if getattr(args, name) is not None]
    if args.export and len(args.run) > 1:
        parser.error("--export writes one model: pass one --run")
    if args.export and given:
        parser.error(f"--export reads no input: leave out {' '.join(given)}")
    if args.output and args.input is None and args.boxes is None:
        parser.error("--input is required (or --boxes FILE, for a JRDB run that uses geometry only)")
    parser.announce(argv)
    return args


if __name__ == "__main__":
    ARGS = parse_args()  # before the heavy imports: --help and a mistyped flag answer at once

from prediction.export import export_model
from prediction.trained import OPTIONS, open_together
from utils.run.log import LOG, start_log
from utils.training.device import choose_device


def main(args: argparse.Namespace) -> None:
    start_log(None)
    trained = open_together(args.run, choose_device(args.device))
    for member in trained.members:
        LOG.info(f"{member.path}: {member.state['script']}, epoch {member.state['epoch']}")
    if args.export:
        export_model(trained, Path(args.export))
        return
    trained.predict(args.input, **{name: getattr(args, name) for name in OPTIONS})


if __name__ == "__main__":
    run_script(main, ARGS)
