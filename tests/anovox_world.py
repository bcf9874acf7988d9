"""The tiny AnoVox sample, generated once per test session, and copies of it that a test may damage."""

import argparse
import functools
import shutil
import tempfile
from pathlib import Path

from datasets.anovox.flags import add_data_arguments
from datasets.anovox.load import AnoVoxData, build_datasets
from datasets.samples.anovox import generate


@functools.cache
def tiny_sample() -> Path:
    """12 scenarios x 4 frames, 96 x 64 pixels; read only."""
    folder = Path(tempfile.mkdtemp(prefix="anovox_tiny_"))
    generate(folder, "tiny", seed=0, workers=1)
    return folder


def load(root: Path, cache_dir=None, log=print, seed=42, modality="both", **flags) -> AnoVoxData:
    """What a script reads of `root` with these flags of datasets/anovox/flags.py."""
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    rest = {"seed": seed, "modality": modality, "check_data": False, "cache_dir": cache_dir, "fold": None}
    rest |= {"paste_share": 0.0}
    known = vars(parser.parse_args([])) | rest | {"data_path": root, "cache_limit_gb": 4.0} | flags
    return build_datasets(argparse.Namespace(**known), log=log)


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
