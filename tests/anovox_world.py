"""The tiny AnoVox sample, generated once per test session, and copies of it that a test may damage."""

import functools
import shutil
import tempfile
from pathlib import Path

from datasets.samples.anovox import generate


@functools.cache
def tiny_sample() -> Path:
    """12 scenarios x 4 frames, 96 x 64 pixels; read only."""
    folder = Path(tempfile.mkdtemp(prefix="anovox_tiny_"))
    generate(folder, "tiny", seed=0, workers=1)
    return folder


def copy_of(sample: Path, target: Path, scenarios: int | None = None) -> Path:
    """A copy with all, or the first few, scenarios (by name); without split.json when it is not whole."""
    shutil.copytree(sample, target)
    if scenarios is not None:
        for folder in scenario_folders(target)[scenarios:]:
            shutil.rmtree(folder)
        (target / "split.json").unlink()
    return target


def scenario_folders(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*/Scenario_*") if path.name != "Scenario_Configuration_Files")


def frame_files(scenario: Path, sensor: str) -> list[Path]:
    """The files of a sensor in the order of their frame numbers."""
    folder = next(path for path in scenario.iterdir() if path.name.startswith(sensor))
    return sorted(folder.iterdir(), key=lambda path: int(path.stem.rsplit("_", 1)[1]))
