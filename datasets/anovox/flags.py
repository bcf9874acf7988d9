"""The flags of the AnoVox data set: where it lies, what makes an anomaly, how it is split, what a model sees.

Without torch and numpy, so that --help and a mistyped flag answer at once.
"""

import argparse

from utils.run import arguments

SAMPLE = "data/sample_anovox"  # what is read without --data_path


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the group "data"; build_datasets(args) of dataset.py reads it."""
    # fmt: off
    add = parser.add_argument_group("data").add_argument
    add("--data_path", help="folder of AnoVox archives or scenarios; default: the built-in sample")
    add("--size", choices=["tiny", "small", "full", "native"], default="small", help="size of the sample")
    add("--label", choices=["visible", "scenario", "voxel", "pasted"], default="visible",
        help="what makes a frame an anomaly: a sensor sees it, its scenario, its voxels, or it is pasted in")
    add("--pastes", type=arguments.non_negative_int, default=0,
        help="with --label pasted: pasted copies of each frame; 0 = for 500 in training")
    add("--feature_mixing", action=argparse.BooleanOptionalAction, default=False,
        help="with --label pasted: train on mixed features instead of pasted things")
    add("--anomaly_ids", type=arguments.non_negative_int, nargs="+", metavar="ID",
        default=[29, 30, 31, 32, 33, 34, 100], help="semantic classes that are anomalies")
    add("--frame_rate", type=arguments.positive_float, default=10.0,
        help="Hz of frame numbers; those in nanoseconds are recognised")
    add("--min_pixels", type=arguments.positive_float, default=20, help="pixels to be visible, at 768x512")
    add("--min_points", type=arguments.positive_int, default=3, help="LiDAR points to be visible")
    add("--camera", help="part of the name of the camera to use; default: the front camera")
    add("--split_method", default="auto", help="auto (the data's split.json, else random), random or a file")
    add("--test_size", type=arguments.fraction, default=0.2, help="share of the scenarios (random split)")
    add("--val_size", type=arguments.fraction, default=0.2, help="share of the scenarios that test leaves")
    add("--holdout_towns", nargs="+", metavar="TOWN", help="towns whose scenarios are the test split")
    add("--image_size", action=arguments.ImageSize, default=[128, 192], help="image in pixels")
    add("--max_points", type=arguments.positive_int, default=1024, help="points per frame; real scans: 4096")
    # fmt: on
