"""The README's SLURM recipe, its very lines, with srun, torchrun and scontrol replaced by stand-ins."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.stopped_runs import argv, environment, whole_run
from tests.test_readme import LANGUAGES, code_lines
from tests.tiny_runs import assert_same_run
from utils.run.folder import REPO_ROOT, read_json

SCRIPT = "train_ddp"
STOPPED = f"""
import signal, sys, pytest
from tests.faults.stopped_runs import exit_code, signal_at
signal_at(pytest.MonkeyPatch(), (1, signal.SIGTERM))
sys.exit(exit_code("{SCRIPT}", sys.argv[1:]))
"""


def recipe(name: str) -> list[str]:
    lines = code_lines(name)
    begin = lines.index("#!/bin/bash")
    return lines[begin : begin + 5]


def test_both_languages_show_the_same_recipe():
    assert recipe(LANGUAGES[0]) == recipe(LANGUAGES[1])
    assert recipe(LANGUAGES[0])[-1].endswith('scontrol requeue "$SLURM_JOB_ID"')


@pytest.mark.long
def test_a_job_is_requeued_until_its_run_is_finished(tmp_path):
    """Job 7 is interrupted, comes again, and finishes its own run, not the one that job 8 left unfinished."""
    flags = argv(SCRIPT, tmp_path)[:-2]  # without --output_dir
    (tmp_path / "stopped.py").write_text(STOPPED)
    stand_ins = {
        "srun": 'exec "$@"',
        "torchrun": f'shift 2; exec {sys.executable} $PROGRAM {" ".join(flags)} "$@"',
        "scontrol": 'echo "$@" >> requeued',
    }
    for name, content in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{content}\n")
        (tmp_path / name).chmod(0o755)

    def job(number: int, program: Path) -> None:
        """As sbatch runs it."""
        path = f"{tmp_path}:{os.environ['PATH']}"
        subprocess.run(
            ["bash", "-c", "\n".join(recipe("README.md"))], cwd=tmp_path, timeout=240,
            env=environment(PATH=path, SLURM_JOB_ID=str(number), PROGRAM=str(program)),
        )  # fmt: skip

    job(7, tmp_path / "stopped.py")
    job(8, tmp_path / "stopped.py")
    job(7, REPO_ROOT / f"{SCRIPT}.py")
    assert (tmp_path / "requeued").read_text() == "requeue 7\nrequeue 8\n"
    (run,) = (tmp_path / "checkpoints/job_7").iterdir()
    assert read_json(run / "status.json")["state"] == "finished"
    assert_same_run(whole_run(SCRIPT), run)
