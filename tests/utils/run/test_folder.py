"""Run folders and their files."""

import json
import logging
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from utils.report.results import table, write_table
from utils.run.errors import CommandError, counted, some
from utils.run.folder import REPO_ROOT, create_run_folder, read_json, read_record, write_json, write_text
from utils.run.log import format_size, format_values, start_log, stop_log


def test_runs_of_one_second_get_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda _: create_run_folder(tmp_path / "out", "stage1"), range(16)))
    assert len(set(folders)) == 16
    numbers = [re.fullmatch(r"stage1_\d{8}_\d{6}(_\d+)?", folder.name)[1] for folder in folders]
    assert None in numbers and "_1" not in numbers  # the first has none
    assert all(folder.is_dir() and folder.name.startswith("stage1_2") for folder in folders)


def test_unusable_output_dir_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match=r"cannot make a folder in .*\n.*--output_dir"):
        create_run_folder(tmp_path / "file", "stage1")


def test_json_has_no_nan_and_reads_numpy(tmp_path):
    write_json(tmp_path / "a.json", {"loss": float("nan"), "n": np.int64(3), "v": np.array([1.5, np.inf])})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": None, "n": 3, "v": [1.5, None]}


def test_json_of_a_windows_editor_is_read_and_a_repeated_key_is_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"train": ["1"]}')
    assert read_json(tmp_path / "a.json") == {"train": ["1"]}
    (tmp_path / "a.json").write_text('{"train": ["1"], "val": ["2"], "train": ["3"]}')
    with pytest.raises(CommandError, match="a.json is not JSON: the key 'train' stands twice"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("args", [None, [], "x"])
def test_a_record_whose_section_is_no_object_is_one_clear_error(tmp_path, args):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"script_name": "train_mae.py", "args": args}))
    with pytest.raises(CommandError, match="config.json has no args, which every run writes"):
        read_record(path, "script_name", "args")


def test_a_file_that_is_too_large_for_a_record_is_not_read(tmp_path):
    (tmp_path / "a.json").touch()
    os.truncate(tmp_path / "a.json", 64_000_001)
    with pytest.raises(CommandError, match="a.json is larger than 64 MB: not of this project"):
        read_json(tmp_path / "a.json")


def test_a_path_that_is_not_utf_8_is_written_as_it_is(tmp_path):
    write_text(tmp_path / "a.txt", os.fsdecode(b"/data/\xff"))
    assert (tmp_path / "a.txt").read_bytes() == b"/data/\xff"


def test_lists_are_cut_and_one_of_a_kind_is_not_several():
    assert some(["a", "b"], 2) == "a, b" and some(["a", "b", "c", "d"], 2) == "a, b, and 2 more"
    assert counted(2, "rows with several ages") == "2 rows with several ages"
    assert counted(1, "rows with several ages") == "1 row with several ages"


def test_unreadable_json_names_the_file(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CommandError, match=r"config\.json is not JSON"):
        read_json(tmp_path / "config.json")
    with pytest.raises(CommandError, match=r"cannot read .*missing\.json"):
        read_json(tmp_path / "missing.json")


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "\ud800")  # cannot be encoded
    assert (tmp_path / "a.txt").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_log_is_one_ascii_line_per_event(tmp_path, capsys):
    log = start_log(tmp_path / "train.log")
    log.info("file \n[OK] verdict: LEARNED \x1b[31m \u4e2d")
    log.warning("careful")
    stop_log()
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert lines == ["file  [OK] verdict: LEARNED  [31m \\u4e2d", "warning: careful"]
    assert capsys.readouterr().out.splitlines() == lines
    assert logging.getLogger("run").handlers == []


def test_a_library_that_sets_up_logging_does_not_make_every_line_appear_twice(capsys):
    with_handler = logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(with_handler)
    try:
        start_log(None).info("once")
    finally:
        logging.getLogger().removeHandler(with_handler)
        stop_log()
    assert capsys.readouterr().out == "once\n"


def test_small_values_stay_visible():
    assert format_values({"loss": 3.3e-5, "f1": None, "epoch": 2}) == "loss 3.3e-05 f1 undefined epoch 2"


def test_sizes_are_said_in_a_unit_that_shows_them():
    assert [format_size(n) for n in (884_736, 35_200_000, 1.25e9)] == ["885 kB", "35.2 MB", "1.25 GB"]


def test_table_is_aligned():
    assert table({"model": {"ap": 0.5}, "b": {"ap": None}}, ["ap"]).splitlines() == [
        "              ap",
        "model        0.5",
        "b      undefined",
    ]


def test_csv_neutralises_formulas_but_not_numbers(tmp_path):
    write_table(
        tmp_path / "t.csv", {"name": np.array(["=cmd()", "-x", "plain"]), "value": np.array([-5, 1, 2])}
    )
    assert (tmp_path / "t.csv").read_text().splitlines()[1:] == ["'=cmd(),-5", "'-x,1", "plain,2"]


def test_run_and_log_import_no_torch():
    code = "import sys, utils.run.folder, utils.run.log; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO_ROOT).returncode == 0
