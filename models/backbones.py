"""The image encoders there are and the channels of their feature maps. Needs no torch: --help shows them."""

CHANNELS = {
    "cnn": 96,
    "efficientnet_lite0": 1280,
    "mobilenet_v2": 1280,
    "mobilenet_v3_large": 960,
    "resnet18": 512,
    "resnet50": 2048,
    "efficientnet_b0": 1280,
    "convnext_tiny": 768,
    "regnet_y_400mf": 440,
}
BACKBONES = tuple(CHANNELS)
