"""Bad input through the command line of each script: --check_data, hostile names, odd paths, narrow consoles.

What each kind of damaged file does to its reader is tested beside the readers (docs/reliability.md lists it).
"""

import atexit
import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets import cache
from datasets.anovox.pointclouds import MAX_SCAN, read_points
from datasets.jrdb.labels import LABEL_FOLDER
from tests.anovox_world import frame_files, scenario_folders
from tests.faults.children import in_a_child
from tests.faults.stopped_runs import (
    AGES,
    EACH,
    SCRIPTS,
    argv,
    copied_data,
    environment,
    exit_code,
    only_run,
    train,
)
from tests.jrdb_world import write_world
from tests.tiny_runs import jrdb
from utils.run.errors import DataError
from utils.run.folder import REPO_ROOT, read_json

HOSTILE = "=HYPERLINK(1)<script>"


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """Sizes and times of everything below a folder."""
    return {str(p.relative_to(root)): (p.stat().st_size, p.stat().st_mtime_ns) for p in root.rglob("*")}


def make_read_only(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def make_writable(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755)


def test_a_trial_writes_into_a_private_folder_that_is_removed(tmp_path, monkeypatch, capfd):
    temporary, output = tmp_path / "temporary", tmp_path / "runs"
    temporary.mkdir()
    flags = argv("train_stage1", output)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    def try_both() -> int:
        atexit._clear()  # what pytest has to do when it ends
        codes = [exit_code("train_stage1", [*flags, trial]) for trial in ("--dry_run", "--check_data")]
        modes = [folder.stat().st_mode & 0o777 for folder in temporary.glob("trial_*")]
        atexit._run_exitfuncs()
        return int((codes, modes, list(temporary.glob("trial_*"))) != ([0, 0], [0o700] * 2, []))

    assert in_a_child(try_both) == 0
    assert not output.exists()
    (last,) = [line for line in capfd.readouterr().out.splitlines() if line.startswith("verdict: ")]
    assert "trial_" not in last


@pytest.mark.parametrize(
    "script", ["train_mae", pytest.param("train_anomaly_with_labels", marks=pytest.mark.long)]
)
def test_decoded_images_go_where_cache_dir_says(script, tmp_path, monkeypatch):
    """The folder of the checkout cannot be written."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(cache, "CACHE_DIR", tmp_path / "file" / "cache")
    folder = tmp_path / "cache"
    assert exit_code(script, argv(script, tmp_path, "--check_data", "--cache_dir", folder)) == 0
    assert list(folder.glob("*.npy"))


@pytest.mark.parametrize("script", EACH)
def test_good_data_is_checked_and_trained_on_without_writing_into_it(script, tmp_path, capsys):
    root, flags = copied_data(script, tmp_path / "data")
    make_read_only(root)
    before = snapshot(root)
    assert exit_code(script, argv(script, tmp_path / "runs", *flags, "--check_data")) == 0
    assert "the data can be trained on" in capsys.readouterr().out
    train(script, tmp_path / "runs", *flags, "--epochs", "1", "--max_batches", "1")
    assert snapshot(root) == before
    make_writable(root)


def damage(script: str, root: Path) -> str:
    """Damage one file; what the message must say."""
    if script == "train_anomaly_with_labels":
        scan = frame_files(scenario_folders(root)[0], "LIDAR")[0]
        np.save(scan, np.full((5, 4), np.inf, np.float32))
        return scan.name
    if script in AGES:
        image = sorted((root / "TA/Healthy/Images").glob("*.png"))[0]
        image.write_text("<html>not found</html>")
        return image.name
    labels = root / LABEL_FOLDER / "val-0_0.json"
    content = json.loads(labels.read_text())
    content["labels"]["000015.jpg"][0]["box"] = [1, 2, -3, 4]
    labels.write_text(json.dumps(content))
    return "000015.jpg"


@pytest.mark.parametrize("script", SCRIPTS)
def test_bad_data_is_named_by_the_check_and_by_training(script, tmp_path, capsys):
    root, flags = copied_data(script, tmp_path / "data")
    name = damage(script, root)
    for more in (["--check_data"], []):
        assert exit_code(script, argv(script, tmp_path / "runs", *flags, *more)) == 3
        said = capsys.readouterr().err
        assert name in said
        assert "Traceback" not in said
        assert len(said.strip().splitlines()) <= 5
    assert not list((tmp_path / "runs").glob("*/*.pth"))


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("path", ["D:/data", "/nowhere/at all", "C:\\Users\\data"])
def test_a_wrong_path_is_a_wrong_command(script, path, tmp_path, capsys):
    flag = "--image_dir" if script in AGES else "--data_path"
    assert exit_code(script, argv(script, tmp_path, flag, path, "--check_data")) == 2
    said = capsys.readouterr().err
    assert path in said
    assert "Traceback" not in said


def test_no_file_outside_the_data_is_opened(tmp_path):
    """A frame name that leads out of the folder: every file that is opened meanwhile is looked at."""
    (tmp_path / "secret.jpg").write_text("not yours")
    for k, name in enumerate(("../../../secret.jpg", str(tmp_path / "secret.jpg"), "..\\..\\..\\secret.jpg")):
        root = write_world(tmp_path / f"data{k}", {"train": 1, "val": 1}, frames=2)
        labels = root / LABEL_FOLDER / "train-0_0.json"
        content = json.loads(labels.read_text())
        content["labels"][name] = content["labels"].pop("000000.jpg")
        labels.write_text(json.dumps(content))

        def check(root=root, k=k) -> int:
            opened = []
            sys.addaudithook(lambda event, values: event == "open" and opened.append(str(values[0])))
            flags = ["--data_path", root, "--features", "crops"]
            code = exit_code("train_stage1", argv("train_stage1", tmp_path / f"runs{k}", *flags))
            return 99 if any("secret" in path for path in opened) or not opened else code

        assert in_a_child(check) == 3


def cells(path: Path) -> list[str]:
    with open(path, newline="", encoding="utf-8") as file:
        return [cell for row in csv.reader(file) for cell in row]


def test_hostile_sequence_names_do_nothing_in_tables_and_logs(tmp_path):
    root = Path(shutil.copytree(jrdb(), tmp_path / "data"))
    split = json.loads((root / "split.json").read_text())
    for part in split:
        split[part] = [HOSTILE + name for name in split[part]]
    for path in (root / LABEL_FOLDER).iterdir():
        path.rename(path.with_name(HOSTILE + path.name))
    (root / "split.json").write_text(json.dumps(split))
    run = train("train_stage1", tmp_path / "runs", "--data_path", str(root), "--epochs", "1")
    found = cells(run / "test_predictions.csv")
    assert any(HOSTILE in cell for cell in found)
    assert not [cell for cell in found if cell.startswith(("=", "+", "@"))]
    assert read_json(run / "split.json") == split


def test_a_name_with_a_line_break_is_refused_and_forges_no_line(tmp_path, capsys):
    root = Path(shutil.copytree(jrdb(), tmp_path / "data"))
    first = next((root / LABEL_FOLDER).iterdir())
    first.rename(first.with_name("a\n[OK] verdict: LEARNED.json"))
    assert exit_code("train_stage1", argv("train_stage1", tmp_path / "runs", "--data_path", str(root))) == 3
    said = capsys.readouterr()
    assert "control character" in said.err
    assert not any(line.startswith("[OK]") for line in (said.out + said.err).splitlines())
    log = (only_run(tmp_path / "runs") / "train.log").read_text()
    assert not any(line.startswith("[OK]") for line in log.splitlines())


@pytest.mark.long
def test_hostile_image_names_do_nothing_in_tables(tmp_path):
    root, flags = copied_data("train_mae", tmp_path / "data")
    for path in (root / "TA/Healthy/Images").iterdir():
        path.rename(path.with_name("=1+" + path.name))
    flags += ["--id_pattern", r"anon_([^_]+)_[^_]+$", "--epochs", "1", "--max_batches", "1"]
    run = train("train_mae", tmp_path / "runs", *flags)
    found = cells(run / "test_predictions.csv")
    assert any("=1+anon" in cell for cell in found)
    assert not [cell for cell in found if cell.startswith("=")]


@pytest.mark.parametrize("script", EACH)
def test_chinese_paths_with_spaces(script, tmp_path):
    root, flags = copied_data(script, tmp_path / "\u6570\u636e \u96c6" / "\u7b2c \u4e00")
    run = train(script, tmp_path / "\u7ed3\u679c \u76ee\u5f55", *flags, "--epochs", "1", "--max_batches", "1")
    config = read_json(run / "config.json")
    assert str(root) in json.dumps(config["dataset"] | config["args"], ensure_ascii=False)
    assert (run / "train.log").read_bytes().isascii()
    assert (run / "results.json").exists()


ON_CONSOLES = """
import sys
from pathlib import Path
import train_stage1
from utils.plotting import curves, figures
from utils.report import interaction
from utils.run.script import run_script

not_done = lambda *values, **options: {}  # no path is shown there
curves.save_figure = figures.save_figure = interaction.reference_scores = not_done
for encoding in ("gbk", "cp1252", "ascii"):
    sys.stdout.reconfigure(encoding=encoding, errors="strict")
    folder = Path(sys.argv[1], encoding)
    run_script(train_stage1.main, train_stage1.parse_args([*sys.argv[2:], "--output_dir", str(folder)]))
    (run,) = folder.iterdir()
    run_script(train_stage1.main, train_stage1.parse_args(["--resume", str(run)]))
"""


@pytest.mark.long
def test_consoles_that_can_not_show_the_path(tmp_path):
    """A whole run, and a look at it when it is finished, with a Chinese path on three narrow consoles, in a
    process that takes names of files for ASCII."""
    root, folder = shutil.copytree(jrdb(), tmp_path / "\u6570\u636e \u96c6"), tmp_path / "\u7ed3\u679c"
    flags = argv("train_stage1", folder, "--data_path", str(root), "--epochs", "1", "--max_batches", "1")
    done = subprocess.run(
        [sys.executable, "-c", ON_CONSOLES, str(folder), *flags],
        cwd=REPO_ROOT, env=environment(PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0"),
        capture_output=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode("ascii", "replace")
    assert b"UnicodeEncodeError" not in done.stderr
    assert done.stdout.count(b"is finished") == 3


@pytest.fixture
def offline(monkeypatch):
    """No connection can be made, and no name be looked up; who tries is noted."""
    tried = []

    def refuse(*values, **options):
        tried.append(values)
        raise OSError("no network")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert tried == []


@pytest.mark.parametrize("script", EACH)
def test_a_run_needs_no_network(script, tmp_path, offline):
    assert exit_code(script, argv(script, tmp_path, "--epochs", "1", "--max_batches", "1")) == 0
    assert (only_run(tmp_path) / "results.json").exists()


@pytest.mark.parametrize(("script", "flag"), [
    *((name, "--model") for name in AGES), ("train_stage1", "--backbone"),
    ("train_anomaly_with_labels", "--image_encoder"),
])  # fmt: skip
def test_weights_that_are_not_on_the_machine_are_one_clear_error(
    script, flag, tmp_path, offline, monkeypatch, capsys
):
    """Before the data, which can take hours, is read."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr(SCRIPTS[script], "build_datasets", None)
    flags = [flag, "resnet18", "--weights", "imagenet", "--check_data"]
    flags += ["--features", "crops"] if script == "train_stage1" else []
    assert exit_code(script, argv(script, tmp_path / "runs", *flags)) == 2
    said = capsys.readouterr().err
    assert f"weights for resnet18 on this machine; looked for resnet18-f37072fd.pth in {tmp_path}" in said
    assert "--weights FILE" in said
    assert len(said.strip().splitlines()) <= 5


# AnoVox scans: what tests/datasets/anovox/test_dataset.py does not have yet
def test_scans_with_infinity_too_many_points_or_cut_records(tmp_path):
    points = np.ones((5, 4), np.float32)
    points[2, 1] = np.inf
    np.save(tmp_path / "inf.npy", points)
    header = np.lib.format
    with open(tmp_path / "many.npy", "wb") as file:  # sparse: no such file is written
        shape = (MAX_SCAN + 1, 4)
        header.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + 16 * shape[0])
    with open(tmp_path / "promised.npy", "wb") as file:
        header.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 4)})
    head = (
        "VERSION .7\nFIELDS x y z intensity\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\nWIDTH 3\nHEIGHT 1\n"
    )
    record = np.ones(4, "<f4").tobytes()
    (tmp_path / "cut.pcd").write_bytes((head + "POINTS 3\nDATA binary\n").encode() + 2 * record + record[:7])
    kinds = head.replace("SIZE 4", "SIZE 3") + "POINTS 3\nDATA binary\n"
    (tmp_path / "kinds.pcd").write_bytes(kinds.encode() + 3 * record)
    said = {}
    for path in tmp_path.iterdir():
        with pytest.raises(DataError, match=path.name) as refused:
            read_points(path)
        said[path.name] = str(refused.value)
    assert "row 2" in said["inf.npy"]
    assert f"{MAX_SCAN:,}" in said["many.npy"]
    assert os.path.getsize(tmp_path / "many.npy") > 10**8
