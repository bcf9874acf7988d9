"""The tiny AnoVox sample, generated once per test session, and copies of it that a test may damage."""

import argparse
import functools
import shutil
from pathlib import Path

from datasets.anovox.flags import add_data_arguments
from datasets.anovox.labels import FrameTable
from datasets.anovox.load import AnoVoxData, build_datasets
from datasets.anovox.splits import split_scenarios
from datasets.samples.anovox import generate
from tests.folders import new_folder


@functools.cache
def tiny_sample() -> Path:
    """12 scenarios x 4 frames, 96 x 64 pixels; read only."""
    generate(new_folder("anovox"), "tiny", seed=0)
    return new_folder("anovox")


def flags(root: Path, **changed) -> argparse.Namespace:
    """Those of datasets/anovox/flags.py and what else reading asks for, some of them changed."""
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    rest = {"seed": 42, "modality": "both", "check_data": False, "cache_dir": None, "fold": None}
    rest |= {"paste_share": 0.0, "data_path": root, "cache_limit_gb": 4.0}
    return argparse.Namespace(**vars(parser.parse_args([])) | rest | changed)


def load(root: Path, cache_dir=None, **changed) -> AnoVoxData:
    """What a script reads of `root` with these flags."""
    return build_datasets(flags(root, cache_dir=cache_dir, **changed))


def split(table: FrameTable, root: Path, **changed) -> tuple[dict[str, list[str]], str, str]:
    """How a script splits these frames with these flags."""
    return split_scenarios(table, root, flags(root, **changed))


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
