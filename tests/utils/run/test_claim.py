"""Which run folder is claimed."""

import argparse

import pytest

from utils.run.claim import claim_folder
from utils.run.errors import CommandError


def test_a_config_without_args_is_named_by_resume_auto(tmp_path):
    run = tmp_path / "stage1_experiment_20260101_000000"
    run.mkdir()
    (run / "config.json").write_text("{}")
    (run / "last.pth").touch()
    args = argparse.Namespace(resume="auto", output_dir=str(tmp_path))
    with pytest.raises(CommandError, match="config.json has no args, script_name"):
        claim_folder(args, "train_stage1.py")
