"""Which run folder is claimed."""

import argparse

import pytest

from tests.faults.children import held_by_another
from utils.run.claim import claim_folder
from utils.run.errors import CommandError
from utils.run.folder import write_json

SCRIPT, FLAGS = "train_stage1.py", {"epochs": 3, "learning_rate": 0.1}


def unfinished(parent, time, script=SCRIPT, **flags):
    """A run that was stopped by the process 4711."""
    run = parent / f"stage1_experiment_20260101_{time}"
    run.mkdir()
    write_json(run / "config.json", {"script_name": script, "args": FLAGS | flags})
    write_json(run / "status.json", {"pid": 4711, "host": "node3", "time": 0})
    (run / "last.pth").touch()
    return run


def claimed(output_dir, resume, **flags):
    """The folder that these flags claim; it is free again."""
    none = {"patience": 0, "force": False, "dry_run": False, "check_data": False}
    args = argparse.Namespace(output_dir=str(output_dir), resume=resume, **(FLAGS | none | flags))
    folder, lock = claim_folder(args, SCRIPT)
    lock.release()
    return folder


def test_a_config_without_args_is_named_by_resume_auto(tmp_path):
    run = tmp_path / "stage1_experiment_20260101_000000"
    run.mkdir()
    (run / "config.json").write_text("{}")
    (run / "last.pth").touch()
    args = argparse.Namespace(resume="auto", output_dir=str(tmp_path))
    with pytest.raises(CommandError, match="config.json has no args, script_name"):
        claim_folder(args, "train_stage1.py")


def test_auto_takes_the_newest_run_that_would_become_the_same(tmp_path):
    older, newer = unfinished(tmp_path, "000000"), unfinished(tmp_path, "010000")
    unfinished(tmp_path, "020000", script="train_stage2.py")
    unfinished(tmp_path, "030000", epochs=4)
    unfinished(tmp_path, "040000", learning_rate=0.2)
    assert claimed(tmp_path, "auto") == newer
    assert claimed(tmp_path, "auto", patience=5) == newer  # how long to wait may change
    write_json(newer / "results.json", {"epochs_run": 3, "best_epoch": 2})
    assert claimed(tmp_path, "auto") == older
    write_json(older / "results.json", {"epochs_run": 2, "best_epoch": 1})  # it has one epoch to go
    assert claimed(tmp_path, "auto") == older
    assert claimed(tmp_path, "auto", patience=1) not in (older, newer)  # it has stopped early
    (older / "last.pth").unlink()
    new = claimed(tmp_path, "auto")
    assert new.parent == tmp_path and not any(new.iterdir())


def test_a_dry_run_finds_out_whether_a_run_could_write_there(tmp_path):
    new = claimed(tmp_path / "new", None, dry_run=True)
    assert tmp_path not in new.parents and not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="cannot make a folder in .*Not a directory"):
        claimed(tmp_path / "file" / "new", None, dry_run=True)


def test_files_that_a_killed_process_began_are_removed_unless_it_may_be_alive(tmp_path):
    run = unfinished(tmp_path, "000000")
    half, other = run / ".history.json.4711.tmp", run / ".evaluation_report.txt.4712.tmp"
    for force, left in (True, [half, other]), (False, [other]):
        half.touch()
        other.touch()
        assert claimed(tmp_path, str(run), force=force) == run
        assert sorted(run.glob(".*.tmp")) == sorted(left)


def test_a_run_that_is_being_trained_is_left_alone_unless_forced(tmp_path):
    run = unfinished(tmp_path, "000000")
    with held_by_another(run / ".lock"):
        with pytest.raises(CommandError, match="is being trained by pid 4711 on node3, last sign of life"):
            claimed(tmp_path, str(run))
        assert claimed(tmp_path, str(run), force=True) == run
        assert claimed(tmp_path, "auto") != run
