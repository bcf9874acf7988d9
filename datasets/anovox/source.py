"""One frame as its files hold it, with or without a thing pasted into it: image, scan and truth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from datasets.anovox.classes import AGENT_IDS, point_classes, read_class_image
from datasets.anovox.files import AnyPath, ScenarioFiles
from datasets.anovox.pasted import SENSORS, Thing, draw_thing, paste_image, paste_scan
from datasets.anovox.points import read_points
from datasets.images import read_image, read_image_size


@dataclass(frozen=True)
class Pasting:
    """Every frame is there 2 * `copies` times: as it is, and with a thing of this `part` pasted into it.

    sensors: which see the thing, one of pasted.SENSORS; None = drawn from those that `modality` has;
    "none" = nothing is pasted, and label 1 marks the frames whose features a model is to mix.
    """

    part: str
    copies: int
    sensors: str | None = None
    modality: str = "both"


@dataclass(frozen=True)
class Source:
    """The files of one item of the data set, and what is pasted into them."""

    scenario: ScenarioFiles
    frame: int
    coding: tuple[str, tuple[int, ...]]  # palette and ids of anomalies
    seed: int
    pasting: Pasting | None = None
    copy: int = 0  # of those of a frame: a thing is pasted into the odd ones
    donors: tuple[AnyPath, ...] = ()  # images that textures are cut from

    def path(self, sensor: str) -> AnyPath | None:
        """The file of a sensor, None where there is none."""
        return self.scenario.files[sensor].get(self.frame)

    @cached_property
    def thing(self) -> Thing | None:
        """What is pasted, the same in image, scan and truth; None where nothing is."""
        paste = self.pasting
        if paste is None or paste.sensors == "none" or self.copy % 2 == 0:
            return None
        scan = self._recorded() if self.path("points") else None
        allowed = {"both": SENSORS, "camera": ("both",), "lidar": ("both", "lidar")}[paste.modality]
        allowed = allowed if scan is not None else ("both",)
        place = (scan, self.scenario.projection, [self.seed, self.copy])
        return draw_thing(*place, paste.part, paste.sensors, allowed)

    def image(self) -> tuple[np.ndarray, np.ndarray | None]:
        """(H, W, 3) uint8, and the share of each pixel (H, W) that is pasted, None where nothing is."""
        image, thing = read_image(self.path("image")), self.thing
        if thing is None:
            return image, None
        rng = np.random.default_rng([self.seed, self.copy, 9])
        others = [read_image(rng.choice(self.donors))] if thing.texture == "cut" else []
        return paste_image(image, thing, self.scenario.projection, [self.seed, self.copy], others)

    def scan(self) -> tuple[np.ndarray, np.ndarray]:
        """(N, 4), and which returns come from what is pasted (N,)."""
        scan, thing = self._recorded(), self.thing
        if thing is None:
            return scan, np.zeros(len(scan), bool)
        return paste_scan(scan, thing, [self.seed, self.copy])

    def _recorded(self) -> np.ndarray:
        path = self.path("points")
        return read_points(path, turn=self.scenario.turn) if path else np.zeros((0, 4), np.float32)

    def true_pixels(self) -> np.ndarray | None:
        """(H, W) int8 1 = anomaly, 0 = normal, -1 = left out (agents); None where it is not known."""
        path = self.path("semantic_image")
        if self.pasting is None:
            return None if path is None else self._truth(read_class_image(path, self.coding[0]))
        if self.pasting.sensors == "none":
            return None
        cover = self.image()[1]
        if cover is None:
            return np.zeros(read_image_size(self.path("image"))[::-1], np.int8)
        return (cover > 0.5).astype(np.int8)

    def true_points(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Places (N, 3) and their truth (N,), coded as in true_pixels; None where it is not known."""
        path = self.path("semantic_points")
        if self.pasting is not None:
            scan, hit = self.scan()
            return scan[:, :3], hit.astype(np.int8)
        if path is None:
            return None
        known = read_points(path, classes=True, turn=self.scenario.turn)
        return known[:, :3], self._truth(point_classes(known[:, 3], self.coding[0], path))

    def _truth(self, classes: np.ndarray) -> np.ndarray:
        agents = np.isin(classes, [number for number in AGENT_IDS if number not in self.coding[1]])
        return np.where(agents, -1, np.isin(classes, self.coding[1])).astype(np.int8)
