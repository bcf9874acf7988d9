"""monitor_training.py: what it says about a run is what the run's files say, whatever state they are in."""

import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import monitor_training as monitor
from monitor_training import draw_run
from utils.run.errors import CommandError
from utils.run.folder import write_json
from utils.watch.run_view import newest_run, read_run, trend

NOW = 1_800_000_000.0
REPO = Path(monitor.__file__).parent
CONFIG = {
    "script_name": "train_stage1.py",
    "timestamp": "2026-11-22T01:36:00",
    "device": "cpu",
    "world_size": 2,
    "num_threads": 1,
    "dataset": {
        "data_path": "data/sample_jrdb",
        "synthetic": True,
        "train_samples": 2015,
        "val_samples": 1696,
        "test_samples": 4030,
        "groups": {"train": 2, "val": 1, "test": 1},
        "class_counts": {"val": {"no": 1434, "yes": 262}},
    },
    "model": {
        "architecture": "Classifier",
        "backbone": "cnn",
        "total_parameters": 294711,
        "trainable_parameters": 252978,
    },
    "training": {"epochs": 50, "patience": 10},
}


def epochs(count, **columns):
    """History rows; a column is a function of the epoch."""
    base = {
        "lr": lambda e: 1e-3,
        "seconds": lambda e: 100.0 if e == 1 else 10.0,
        "samples_per_second": lambda e: 812.0,
        "train_loss": lambda e: 1.0 / e,
        "val_loss": lambda e: 1.0 / e,
        "val_auroc": lambda e: 0.6 + 0.01 * e,
        "val_f1": lambda e: 0.5 + 0.01 * e,
    }
    return [{"epoch": e} | {k: f(e) for k, f in (base | columns).items()} for e in range(1, count + 1)]


def make_run(
    folder, name="stage1_experiment_20261122_013555", *, config=CONFIG, history=(), status=None, results=None
):
    run = folder / name
    run.mkdir(parents=True)
    for file, part in {
        "config": config,
        "history": list(history),
        "status": status,
        "results": results,
    }.items():
        if part:
            write_json(run / f"{file}.json", part)
    return run


def status(**fields):
    """A run in the middle of epoch 5 of 50, alive, in this process."""
    return {
        "state": "training", "time": NOW, "pid": os.getpid(), "host": socket.gethostname(),
        "epoch": 5, "epochs": 50, "step": 63, "steps": 126, "wait": 0, "patience": 10,
        "gpu_memory_mb": None, "warnings": [], "reason": None,
    } | fields  # fmt: skip


def picture(run, now=NOW, width=110):
    return "\n".join(draw_run(read_run(run), now, 10, width))


def test_a_run_in_the_middle_shows_all_there_is_to_see(tmp_path):
    run = make_run(tmp_path, history=epochs(4), status=status(gpu_memory_mb=812.4))
    text = picture(run)
    assert "2015 train, 1696 val, 4030 test of 2 + 1 + 1 sequences" in text
    assert "cpu, 2 processes, 1 thread" in text and "812 MB" in text
    assert "Classifier (cnn), 294,711 parameters, 252,978 of them trained" in text
    assert "4/50 epochs, step 63/126 of epoch 5" in text and "  9%" in text
    assert "best      4        0.25" in text
    assert text.isascii() and max(map(len, text.split("\n"))) <= 110
    assert max(map(len, picture(run, width=70).split("\n")[1:])) <= 70
    blind = CONFIG | {"model": CONFIG["model"] | {"features": "geometry"}}
    assert "Classifier (geometry), " in picture(make_run(tmp_path / "blind", config=blind, history=epochs(1)))


def test_time_left_is_the_median_of_the_last_ten_without_the_first(tmp_path):
    run = make_run(tmp_path, history=epochs(4), status=status(wait=3))
    view = read_run(run)
    assert view.seconds_per_epoch == 10.0
    second = make_run(tmp_path / "b", history=epochs(2))
    assert read_run(second).seconds_per_epoch == 10.0  # not the 100 s of the first epoch
    only = make_run(tmp_path / "c", history=epochs(1))
    assert read_run(only).seconds_per_epoch == 100.0
    assert view.time_left() == pytest.approx(((10 - 3 - 0.5) * 10.0, 45.5 * 10.0))
    assert view.time_left_words() == "up to 8 min (65 s if no epoch gets better: early stopping)"
    seconds = [1.0, *random.Random(0).sample(range(2, 60), 30)]
    many = epochs(31, seconds=lambda e: seconds[e - 1])
    alone = make_run(
        tmp_path, "stage1_experiment_20261122_013556", history=many, status=status(patience=0, epoch=32)
    )
    assert read_run(alone).time_left_words() == f"{np.median(seconds[-10:]) * 18.5 / 60:.0f} min"


@pytest.mark.parametrize(
    ("fields", "age", "word", "detail"),
    [
        ({}, 60, "training", ""),
        ({"pid": 2**22 + 1}, 720, "stalled", "last sign of life 12 min ago; process 4194305 is not found"),
        ({"pid": 2**22 + 1, "host": "elsewhere"}, 720, "stalled", "last sign of life 12 min ago"),
        ({"state": "starting"}, 720, "starting", ""),  # a first image cache takes its time
        ({"pid": 2**22 + 1, "state": "testing"}, 50, "testing", "50 s ago; process 4194305 is not found"),
        (
            {"pid": 2**22 + 1, "state": "testing"},
            90,
            "stalled",
            "90 s ago; process 4194305 is not found: killed, out of memory, or in another container?",
        ),
        ({"state": "testing"}, 2000, "stalled", "33 min ago"),
        (
            {"state": "interrupted", "reason": "stopped by a signal"},
            10**6,
            "interrupted",
            "stopped by a signal",
        ),
        ({"state": "failed", "reason": "loss NaN in epoch 2"}, 10**6, "failed", "loss NaN in epoch 2"),
        ({"state": "finished"}, 10**6, "finished", ""),
    ],
)
def test_states(tmp_path, fields, age, word, detail):
    run = make_run(tmp_path, history=epochs(4), status=status(**fields))
    state = read_run(run).state(NOW + age)
    assert state.word == word and detail in state.detail
    assert ("process" in state.detail) == ("pid" in fields and "host" not in fields)
    command = f"python train_stage1.py --resume {run}"
    assert command not in picture(run, NOW + age, 300)  # there is nothing to go on from
    (run / "last.pth").touch()
    assert (command in picture(run, NOW + age, 300)) == (word in ("stalled", "interrupted", "failed"))


def test_a_slow_epoch_is_not_a_stall(tmp_path):
    run = make_run(tmp_path, history=epochs(4, seconds=lambda e: 900.0), status=status())
    assert read_run(run).state(NOW + 720).word == "training"


def test_a_run_that_has_only_its_log_is_starting_and_a_finished_one_says_its_verdict(tmp_path):
    results = {"verdict": "NOT LEARNED", "verdict_reason": "because", "reference": "worse than trees"}
    run = make_run(tmp_path, history=epochs(4), status=status(state="finished"), results=results)
    assert str(read_run(run).state(NOW + 3600)) == "finished (NOT LEARNED)"
    assert "NOT LEARNED (because); worse than trees" in picture(
        run
    ) and "4 of 50 epochs, stopped early" in picture(run)
    bare = tmp_path / "stage1_experiment_20261122_020000"
    bare.mkdir()
    (bare / "train.log").write_text("train_stage1.py starts\n")
    assert "config.json is not there yet" in picture(bare, time.time())
    assert read_run(bare).state(time.time()).word == "starting"


def test_the_trend_is_the_least_squares_line_with_students_interval():
    rng = np.random.default_rng(0)
    x, y = np.arange(1, 31), rng.normal(size=30)
    found = trend(x.tolist(), y.tolist())
    (slope, _), covariance = np.polyfit(x[-10:], y[-10:], 1, cov="unscaled")
    residuals = y[-10:] - np.polyval(np.polyfit(x[-10:], y[-10:], 1), x[-10:])
    reach = 2.306 * np.sqrt(covariance[0, 0] * (residuals**2).sum() / 8)
    assert (found.slope, found.reach, found.epochs) == (pytest.approx(slope), pytest.approx(reach), 10)
    assert not found.clear and str(found).startswith("no trend beyond its noise")
    falling = trend(range(1, 11), [1 - 0.1 * k + 0.01 * (-1) ** k for k in range(10)])
    assert str(falling).startswith("falling 0.1 +- 0.0")
    assert trend([1, 2, 3], [1, 2, 3]) is None  # too few to tell
    assert trend([1, 2, 3, 4, 5], [1, None, float("nan"), 2, 3]) is None


def test_noise_alone_shows_a_trend_about_as_rarely_as_it_says():
    rng = np.random.default_rng(1)
    clear = [trend(range(10), rng.normal(size=10).tolist()).clear for _ in range(2000)]
    assert 0.03 < np.mean(clear) < 0.07


def signs(tmp_path, rows, **more):
    return read_run(make_run(tmp_path, history=rows, **more)).learning_signs()


def test_learning_signs_say_what_is_wrong(tmp_path):
    assert signs(tmp_path / "good", epochs(12)) == []
    (text,) = signs(tmp_path / "guessing", epochs(6, val_auroc=lambda e: 0.5 + 0.01 * (-1) ** e))
    assert text.startswith("hardly any skill: val_auroc is 0.5") and "knows nothing reaches 0.5" in text
    (text,) = signs(tmp_path / "flat", epochs(6, train_loss=lambda e: 0.69 + 1e-4 * e))
    assert text.startswith("flat: train_loss stays at 0.6906 for 5 epochs")
    assert not signs(
        tmp_path / "done", epochs(9, train_loss=lambda e: 0.3, lr=lambda e: 1e-3 if e < 4 else 1e-5)
    )
    (text,) = signs(tmp_path / "overfit", epochs(12, val_loss=lambda e: 0.5 + 0.02 * abs(e - 4)))
    assert text.startswith("overfitting since epoch 4: val_loss rose from 0.5 to 0.66 while train_loss fell")
    assert text.endswith("val_f1, which selects the best epoch, was best later, in epoch 12")
    broken = epochs(3, train_loss=lambda e: float("nan") if e == 3 else 0.5)
    assert signs(tmp_path / "nan", broken)[0] == "NaN: train_loss was not finite in epoch 3"
    above = epochs(3, val_loss=lambda e: 0.5)
    (text,) = signs(tmp_path / "above", above, status=status(constant_loss=0.43))
    assert text.startswith("val loss above a constant's: 0.5 in the last epoch") and "0.43 on val" in text
    assert not signs(tmp_path / "below", above, status=status(constant_loss=0.51))
    said = "no gradient reaches encoder: a detached or dead part of the model"
    assert signs(tmp_path / "said", epochs(2), status=status(warnings=[said])) == [said]


def test_no_skill_of_the_types_and_of_the_ages(tmp_path):
    types = CONFIG | {"script_name": "train_stage2.py"}
    types["dataset"] = CONFIG["dataset"] | {"class_counts": {"val": {"a": 4, "b": 4, "c": 2, "d": 0}}}
    rows = epochs(4, val_balanced_accuracy=lambda e: 0.36, val_macro_f1=lambda e: 0.2)
    assert "knows nothing reaches 0.333" in signs(tmp_path / "types", rows, config=types)[0]
    ages = CONFIG | {"script_name": "train_mae.py"}
    rows = epochs(4, val_r2=lambda e: -0.1, val_subject_mae=lambda e: 10 - e, val_mae=lambda e: e)
    assert signs(tmp_path / "ages", rows, config=ages)[0].startswith("hardly any skill: val_r2 is -0.1")
    assert read_run(tmp_path / "ages" / "stage1_experiment_20261122_013555").best["epoch"] == 4  # lowest MAE


def test_the_run_at_hand_is_the_live_one_else_the_newest(tmp_path):
    old = make_run(tmp_path, "stage2_experiment_20261122_010000", status=status())
    make_run(tmp_path, "stage1_experiment_20261122_020000", status=status(state="finished"))
    second = make_run(tmp_path, "age_mae_experiment_20261122_020000_2")
    (tmp_path / "notes").mkdir()
    assert newest_run(tmp_path) == old
    write_json(old / "status.json", status(state="interrupted"))
    assert newest_run(tmp_path) == second
    with pytest.raises(CommandError, match="no run folder in .*nowhere"):
        newest_run(tmp_path / "nowhere")


def test_the_run_one_stands_in_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_run(Path(".")).name == tmp_path.name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("stage1_experiment_20261122_01000", "did you mean stage1_experiment_20261122_010000"),
        ("stage9*", "no run folder matches stage9"),
        (".", "is not a run folder: it has no config.json of a training script"),
    ],
)
def test_an_unknown_run_is_one_clear_error(tmp_path, name, said):
    make_run(tmp_path, "stage1_experiment_20261122_010000")
    command = [sys.executable, str(REPO / "monitor_training.py"), name, "--output_dir", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 5 and not done.stdout


def test_it_starts_without_the_heavy_libraries():
    heavy = "{'torch', 'numpy', 'scipy', 'sklearn', 'matplotlib', 'pandas', 'PIL'}"
    code = f"import sys, monitor_training; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_json_is_for_programs(tmp_path, capsys):
    run = make_run(tmp_path, history=epochs(12), status=status(epoch=13, time=time.time()))
    monitor.main(monitor.parse_args([str(run), "--json"]))
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["state"], found["epochs"], found["best_epoch"], found["best"]) == ("training", 50, 12, 0.62)
    assert found["seconds_left"]["most"] == pytest.approx(37.5 * 10)
    assert found["trend"]["val_f1"]["slope"] == pytest.approx(0.01) and found["trend"]["val_f1"]["clear"]


def test_several_runs_stand_side_by_side(tmp_path, capsys):
    ended = status(state="finished")
    first = make_run(tmp_path / "a", history=epochs(12), status=ended, results={"verdict": "LEARNED"})
    second = make_run(tmp_path / "b", history=epochs(3), status=status(epoch=4, time=time.time()))
    monitor.main(monitor.parse_args([str(first), str(second)]))
    head, one, two = capsys.readouterr().out.splitlines()
    assert head.split()[:5] == ["run", "state", "epoch", "left", "train_loss"]
    assert str(first) in one and "finished LEARNED  12/50" in one and "0.62 in 12  rising" in one
    assert str(second) in two and "training   3/50  8 min" in two


def test_follow_prints_each_epoch_and_state_once_when_piped(tmp_path, capsys, monkeypatch):
    run = make_run(tmp_path, history=epochs(2), status=status(time=time.time()))

    def next_moment(seconds):
        assert seconds == 5.0
        done = len(json.loads((run / "history.json").read_text()))
        if done < 5:
            write_json(run / "history.json", epochs(done + 1))
        else:
            write_json(run / "status.json", status(state="finished"))

    monkeypatch.setattr(time, "sleep", next_moment)
    monitor.main(monitor.parse_args([str(run), "--follow"]))
    lines = [line.split(" ", 2)[2] for line in capsys.readouterr().out.splitlines()]
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == [
        "002/050",
        "003/050",
        "004/050",
        "005/050",
    ]
    assert lines[1] == "training" and lines[-1] == "finished" and len(lines) == 6
    assert "left up to" in lines[0]


@pytest.mark.parametrize("rows", [8, 20])
@pytest.mark.parametrize("best", [1, 8])
def test_a_followed_run_fits_on_the_screen(tmp_path, monkeypatch, rows, best):
    history = epochs(8, val_f1=lambda e: 0.9 if e == best else 0.5)
    view = read_run(make_run(tmp_path, history=history, status=status(epoch=9)))
    monkeypatch.setenv("COLUMNS", "110")
    full = monitor.draw([view], NOW, rows, fit_screen=False).splitlines()
    monkeypatch.setenv("LINES", str(len(full) - 4))
    text = monitor.draw([view], NOW, rows, fit_screen=True)
    assert len(text.splitlines()) == len(full) - 5  # and the line of the cursor
    assert text.splitlines()[0] == str(view.folder) and f"best  {best:5d}" in text


def test_one_row_is_the_newest_epoch(tmp_path):
    history = epochs(8, val_f1=lambda e: 0.9 if e == 1 else 0.5)
    view = read_run(make_run(tmp_path, history=history, status=status(epoch=9)))
    assert [line.split()[0] for line in monitor.epoch_table(view, 1)[1:]] == ["8"]
    best, last = monitor.epoch_table(view, 2)[1:]
    assert best.split()[:2] == ["best", "1"] and last.split()[0] == "8"


def test_follow_takes_seconds_however_they_are_written():
    assert monitor.parse_args(["RUN", "--follow", "1e3"]).follow == 1000
    assert monitor.parse_args(["--follow"]).follow == monitor.parse_args(["RUN", "--follow"]).follow == 5
    with pytest.raises(SystemExit):
        monitor.parse_args(["--follow", "RUN"])


def test_names_with_odd_characters_stay_on_their_line(tmp_path, capsys):
    run = make_run(tmp_path, "st\u00e4ge\x1b[2J_experiment_20261122_013555", history=epochs(1))
    monitor.main(monitor.parse_args([str(run)]))
    first = capsys.readouterr().out.splitlines()[0]
    assert "st\\xe4ge [2J" in first


def write_again_and_again(run, stop):
    for k in range(10**9):
        if stop.is_set():
            return
        write_json(run / "history.json", epochs(1 + k % 40))
        write_json(run / "status.json", status(epoch=2 + k % 40, time=time.time()))
        write_json(run / "config.json", CONFIG | {"seed": k})


def test_no_read_fails_while_the_files_are_rewritten(tmp_path):
    run = make_run(tmp_path, history=epochs(1), status=status())
    stop = multiprocessing.get_context("fork").Event()
    writer = multiprocessing.get_context("fork").Process(target=write_again_and_again, args=(run, stop))
    writer.start()
    try:
        lengths = {len(read_run(run).history) for _ in range(2000)}
    finally:
        stop.set()
        writer.join()
    assert len(lengths) > 3  # it was rewritten meanwhile, and every one of the reads was whole
