"""The walks of docs/changing.md: each patch applies to the code as it is, and a copy with all of them
trains."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import torch

from datasets.ultrasound.augmentation import augment_images
from tests.faults.children import in_a_child
from tests.tiny_runs import EXCLUDE, ultrasound
from utils.run.folder import REPO_ROOT, read_json

CODE = ("datasets", "models", "utils", "prediction")
WALKS = {"A loss": 1, "A backbone": 1, "An augmentation": 1, "A metric": 2}  # files that each may touch


def patches() -> dict[str, list[tuple[str, str, str]]]:
    """(file, lines that stand there, lines that shall stand there) of each walk with a diff, by its title."""
    found = {}
    for walk in (REPO_ROOT / "docs/changing.md").read_text().split("\n## ")[1:]:
        title = re.match(r"[^:,]*", walk)[0]
        for block in re.findall(r"```diff\n(.*?)```", walk, re.S):
            for file, lines in re.findall(r"--- (\S+)\n((?:[ +-](?!-- ).*\n)+)", block):
                rows = lines.splitlines()
                sides = ("".join(f"{row[1:]}\n" for row in rows if row[0] in kept) for kept in (" -", " +"))
                found.setdefault(title, []).append((file, *sides))
    return found


def patched_copy(target: Path) -> Path:
    """The code with every walk done. A patch must find its lines, once."""
    for name in CODE:
        shutil.copytree(REPO_ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in REPO_ROOT.glob("*.py"):
        shutil.copy(path, target)
    for walk in patches().values():
        for file, old, new in walk:
            text = (target / file).read_text()
            assert text.count(old) == 1, f"{file} does not hold, once:\n{old}"
            (target / file).write_text(text.replace(old, new))
    return target


def enter(copy: Path) -> None:
    """In a forked process: import the copy from now on, and nothing of this repository."""
    own = {path.stem for path in REPO_ROOT.iterdir()}  # not by path: a virtual environment may lie in here
    for name in [name for name in sys.modules if name.split(".")[0] in own]:
        del sys.modules[name]
    sys.path[:] = [str(copy), *(path for path in sys.path if Path(path or ".").resolve() != REPO_ROOT)]
    os.chdir(copy)


def shown_by(name: str, argv: list[str], capture: Path) -> str:
    """What a script of the copy prints."""
    script = __import__(name)
    with open(capture, "w") as file:
        sys.stdout = file
        script.main(script.parse_args(argv))
    return capture.read_text()


def images_of(augment) -> list[float]:
    images = torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8).byte()
    return augment(images, torch.arange(2), 1, seed=0, rotation=0, jitter=0, flip=False).flatten().tolist()


def test_each_walk_touches_what_it_says():
    assert {title: len(walk) for title, walk in patches().items()} == WALKS


def test_a_copy_with_a_new_loss_backbone_augmentation_and_metric_trains(tmp_path):
    copy, out, images = patched_copy(tmp_path / "copy"), tmp_path / "out", str(ultrasound())

    def train() -> int:
        enter(copy)
        recipe = "--model shufflenet_v2_x0_5 --image_size 32 --epochs 1 --batch_size 16 --device cpu"
        argv = ["--image_dir", images, *EXCLUDE, *recipe.split(), "--output_dir", str(out)]
        said = {"train": shown_by("train_mae", argv, tmp_path / "printed")}
        (run,) = out.iterdir()
        said["monitor"] = shown_by("monitor_training", [str(run)], tmp_path / "printed")
        said["compare"] = shown_by("compare_runs", [str(run), str(run)], tmp_path / "printed")
        from datasets.ultrasound.augmentation import augment_images as patched

        said["augmented"] = images_of(patched)
        (tmp_path / "said.json").write_text(json.dumps(said))
        return 0

    assert in_a_child(train, seconds=300) == 0
    (run,) = out.iterdir()
    said, config = read_json(tmp_path / "said.json"), read_json(run / "config.json")
    assert config["training"]["loss_function"] == "SmoothL1Loss"
    assert config["model"]["backbone"] == "shufflenet_v2_x0_5"
    assert said["augmented"] != images_of(augment_images)
    epochs = [line for line in said["train"].splitlines() if line.startswith("epoch ")]
    assert len(epochs) == 1 and all("val_median_error " in line for line in epochs)
    assert all(row["val_median_error"] > 0 for row in read_json(run / "history.json"))
    assert read_json(run / "results.json")["metrics"]["test"]["median_error"] > 0
    assert "median_error" in (run / "evaluation_report.txt").read_text()
    assert "val_median_error" in said["monitor"] and "median_error" in said["compare"]
