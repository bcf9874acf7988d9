"""--amp: every script trains in bfloat16 on a CPU, near what float32 gives, and says where that is slow."""

import importlib
import logging

import pytest
import torch

from tests import tiny_runs
from utils.run.folder import read_json
from utils.training.device import make_scaler


@pytest.mark.long
@pytest.mark.parametrize("name", tiny_runs.NAMES)
def test_a_run_in_bfloat16_stays_near_the_same_run_in_float32(name, tmp_path):
    script, whole = importlib.import_module(name), tiny_runs.run_of(name)
    argv = ["--config", str(whole / "config.json"), "--amp", "--epochs", "1", "--output_dir", str(tmp_path)]
    script.main(script.parse_args(argv))
    (run,) = tmp_path.iterdir()
    assert read_json(run / "config.json")["optimizations"]["mixed_precision"] is True
    ours, theirs = (read_json(folder / "history.json")[0]["train_loss"] for folder in (run, whole))
    assert ours == pytest.approx(theirs, rel=0.1) and ours != theirs


def test_the_log_warns_of_a_cpu_without_bfloat16(monkeypatch, caplog):
    caplog.set_level(logging.WARNING, logger="run")
    for known in (True, False):
        caplog.clear()
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda known=known: known)
        assert not make_scaler(torch.device("cpu"), amp=True).is_enabled()
        assert ("bfloat16" in caplog.text) != known
