"""The flags of the AnoVox data set: its folder, labels, split, and the model's input.

Imports neither torch nor numpy, so that --help and mistyped flags answer at once.
"""

import argparse

from utils.run import arguments

SAMPLE = "data/sample_anovox"  # used without --data_path
SHARE = 0.2  # default of --test_size and --val_size
# Simulated sensor failures, see augmentation.corrupt_frames.
CORRUPTIONS = ("camera_black", "camera_blur", "camera_noise", "lidar_dropout", "lidar_missing")


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the group "data"; build_datasets(args) of load.py reads it."""
    # fmt: off
    add = parser.add_argument_group("data").add_argument
    add("--data_path", type=arguments.place,
        help="folder of AnoVox archives or scenarios; default: the built-in sample")
    add("--label", choices=["visible", "scenario", "voxel", "pasted"], default="visible",
        help="what makes a frame anomalous: a sensor sees it, its scenario, its voxels, or a pasted object")
    add("--pastes", type=arguments.non_negative_int, default=0,
        help="with --label pasted: pasted copies per frame; 0 = enough for 500 in training")
    add("--paste_share", type=arguments.fraction, default=0.5,
        help="share of the normal training frames repeated with a pasted object; 0 = none")
    add("--anomaly_ids", type=arguments.non_negative_int, nargs="+", metavar="ID",
        default=[29, 30, 31, 32, 33, 34, 100], help="ids of the semantic classes that are anomalies")
    add("--frame_rate", type=arguments.positive_float, default=10.0,
        help="frame numbers per second; numbers that are times are recognised")
    add("--min_pixels", type=arguments.positive_float, default=20, help="pixels to be visible, at 768x512")
    add("--min_points", type=arguments.positive_int, default=3, help="LiDAR points to be visible")
    add("--camera", help="part of the name of the camera to use; default: the front camera")
    add("--split_method", type=arguments.place_or("auto", "random"), default="auto",
        help="auto (the data's split.json, else random), random or a file")
    add("--test_size", type=arguments.fraction, default=SHARE, help="share of the scenarios (random split)")
    add("--val_size", type=arguments.fraction, default=SHARE, help="share of the scenarios not in test")
    add("--holdout_towns", nargs="+", metavar="TOWN", help="towns whose scenarios are the test split")
    add("--image_size", action=arguments.ImageSize, default=[128, 192], help="image size in pixels")
    add("--max_points", type=arguments.positive_int, default=1024, help="points per frame, real scans: 4096")
    # fmt: on
