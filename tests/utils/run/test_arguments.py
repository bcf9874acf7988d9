"""The command line: precedence, spelling, refusals."""

import contextlib
import json

import pytest

import compare_runs
import evaluate
import monitor_training
import predict
import train_anomaly_with_labels
import train_mae
import train_stage1
import train_stage2


def test_dashes_and_underscores_are_the_same():
    args = train_stage1.parse_args(["--batch-size", "4", "--no-use-group-sampling", "--image-size=96"])
    assert args.batch_size == 4 and args.use_group_sampling is False and args.image_size == [96, 96]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epoch", "5"], "did you mean --epochs"),
        (["--epochs", "0"], "argument --epochs: '0' is not a whole number above 0"),
        (["--learning_rate", "nan"], "is not a number above 0"),
        (["--dropout", "1"], "'1' is not a number from 0 to below 1"),
        (["--features", "pixels"], "invalid choice: 'pixels'"),
        (["--image_size", "1", "2", "3"], "one or two whole numbers"),
        (["--resume", "a", "--config", "b"], "exclude each other"),
        (["--config", "missing.json"], "cannot read missing.json"),
        (["--data_path", ""], "argument --data_path: the text is empty: is a variable not set?"),
        (["--weights", ""], "argument --weights: the text is empty"),
        (["--output_dir", " "], "argument --output_dir: the text is empty"),
        (["--resume", ""], "argument --resume: the text is empty"),
        (["--resume="], "argument --resume: the text is empty"),
        (["--config", ""], "argument --config: the text is empty"),
    ],
)
def test_wrong_flags_end_with_code_2_and_a_reason(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        train_stage1.parse_args(argv)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and len(error.splitlines()) <= 3


@pytest.mark.parametrize(
    ("script", "flag", "more"),
    [
        (predict, "--run", ["--output", "out"]),
        (predict, "--input", ["--run", "run", "--output", "out"]),
        (predict, "--boxes", ["--run", "run", "--input", "in", "--output", "out"]),
        (predict, "--output", ["--run", "run", "--input", "in"]),
        (predict, "--export", ["--run", "run"]),
        (evaluate, "--run", []),
        (evaluate, "--checkpoint", ["--run", "run"]),
        (evaluate, "--camera", ["--run", "run"]),
        (evaluate, "--id_column", ["--run", "run"]),
        (compare_runs, "--picture_dir", ["run"]),
        (compare_runs, "--name", ["run"]),
        (monitor_training, "--output_dir", []),
        (train_stage2, "--backbone", []),
        (train_anomaly_with_labels, "--holdout_towns", []),
        (train_mae, "--sheet", []),
        (train_mae, "--target_unit", []),
    ],
)
def test_an_unset_variable_does_not_mean_the_default(script, flag, more, capsys):
    with pytest.raises(SystemExit) as stop:
        script.parse_args([*more, flag, ""])
    assert stop.value.code == 2 and f"argument {flag}: the text is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "argv"),
    [
        (predict, "--run a --output out --input in --run b"),
        (train_anomaly_with_labels, "--anomaly-ids 29 --anomaly_ids=30"),
        (train_mae, "--exclude images_without_row --exclude rows_without_image"),
    ],
)
def test_a_list_that_is_given_twice_would_be_half_forgotten(script, argv, capsys):
    with pytest.raises(SystemExit):
        script.parse_args(argv.split())
    assert "is given twice: pass all its values to one --" in capsys.readouterr().err


def test_a_weight_is_auto_or_a_number():
    parse_args = train_anomaly_with_labels.parse_args
    assert [parse_args([f"--pos_weight={typed}"]).pos_weight for typed in ("auto", "2.5")] == ["auto", "2.5"]
    with pytest.raises(SystemExit):
        parse_args(["--pos_weight", "0"])


def test_an_empty_column_means_none():
    args = evaluate.parse_args(["--run", "run", "--visit_column", "", "--group_column="])
    assert args.visit_column == args.group_column == "" and args.file_column is None


@pytest.mark.parametrize(
    ("script", "typed", "added", "message"),
    [
        (train_anomaly_with_labels, "--weights imagenet", "--image_encoder resnet18",
         "--weights imagenet: the encoder cnn has no pretrained weights; add --image_encoder resnet18"),
        (train_anomaly_with_labels, "--weights RUN --image_encoder resnet18 --modality lidar",
         "--modality both", "--weights RUN: --modality lidar has no image encoder; leave one of them out"),
        (train_anomaly_with_labels, "--freeze_encoder", "--image_encoder resnet18 --weights imagenet",
         "--freeze_encoder: there are no weights to keep; add --image_encoder resnet18 --weights imagenet"),
        (train_anomaly_with_labels, "--freeze_encoder --image_encoder resnet18", "--weights imagenet",
         "--freeze_encoder: there are no weights to keep; add"),
        (train_stage1, "--weights imagenet --features geometry", "--features crops",
         "--weights imagenet: --features geometry has no encoder; pass --weights none"),
    ],
)  # fmt: skip
def test_weights_that_nothing_would_load_are_refused(script, typed, added, message, capsys):
    with pytest.raises(SystemExit) as stop:
        script.parse_args(typed.split())
    assert stop.value.code == 2 and f"error: {message}" in capsys.readouterr().err
    script.parse_args([*typed.split(), *added.split()])


def test_a_run_that_was_begun_with_weights_that_nothing_loads_can_be_resumed(tmp_path):
    path = save(tmp_path, weights="imagenet", features="geometry")
    assert train_stage1.parse_args(["--resume", str(tmp_path)]).weights == "imagenet"
    with pytest.raises(SystemExit):
        train_stage1.parse_args(["--config", path])


def save(tmp_path, **changes):
    args = vars(train_stage1.parse_args([])) | changes
    config = {"script_name": "train_stage1.py", "args": args}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "last.pth").touch()
    return str(tmp_path / "config.json")


def test_typed_flags_win_over_config_which_wins_over_defaults(tmp_path):
    path = save(tmp_path, epochs=7, batch_size=3, use_group_sampling=False, image_size=[64, 32])
    args = train_stage1.parse_args(["--config", path, "--batch_size", "5"])
    assert (args.epochs, args.batch_size, args.use_group_sampling, args.image_size) == (7, 5, False, [64, 32])
    assert args.learning_rate == 1e-3


def test_a_typed_flag_brings_the_defaults_that_depend_on_it(tmp_path):
    """The recorded ones belong to the other value: dropout 0.2 to crops, the inputs to the other stage 1."""
    names = ("dropout", "augment", "whole_past", "rescore")
    path = save(tmp_path)
    for typed, found in (
        ([], [0.2, True, False, False]),
        (["--features", "crops+geometry"], [0.2, True, False, False]),
        (["--features", "geometry"], [0.5, False, True, True]),
        (["--features", "geometry", "--dropout", "0.3"], [0.3, False, True, True]),
    ):
        args = train_stage1.parse_args(["--config", path, *typed])
        assert [getattr(args, name) for name in names] == found
    args = vars(train_stage2.parse_args(["--stage1_checkpoint", "a.pth", "--features", "geometry"]))
    config = {"script_name": "train_stage2.py", "args": args | {"dropout": 0.4, "frame_rate": 10.0}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for typed, found in (([], "geometry"), (["--stage1_checkpoint", "b.pth"], None)):
        args = train_stage2.parse_args(["--config", path, *typed])
        assert (args.features, args.dropout, args.frame_rate) == (found, 0.4, 10.0)


def test_a_repeated_run_can_be_requeued(tmp_path, capsys):
    """--resume auto takes no flags of a run: it looks for one with those of --config."""
    args = train_stage1.parse_args(["--config", save(tmp_path, epochs=7), "--resume", "auto", "--seed", "3"])
    assert (args.resume, args.epochs, args.seed) == ("auto", 7, 3)


def test_config_round_trip_gives_equal_args(tmp_path):
    path = save(tmp_path, learning_rate=0.1 + 0.2, data_path="/a folder/with spaces")
    args = train_stage1.parse_args(["--config", path])
    assert vars(args) | {"config": None} == json.loads((tmp_path / "config.json").read_text())["args"]


def test_paths_are_recorded_so_that_another_folder_finds_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "mine.json").touch()
    args = train_mae.parse_args(["--image_dir=~/US", "--weights=imagenet", "--split_method=mine.json"])
    assert args.image_dir == str(tmp_path / "US") and args.split_method == str(tmp_path / "mine.json")
    assert args.weights == "imagenet" and train_mae.parse_args([]).image_dir is None
    assert train_stage1.parse_args(["--split_method", "offical"]).split_method == "offical"


def test_unknown_keys_and_bad_values_in_a_config_are_refused(tmp_path, capsys):
    for changes, message in (
        ({"epochz": 3}, "did you mean epochs"),
        ({"epochs": -1}, "whole number above 0"),
        ({"amp": "False"}, "--amp in config.json: 'False' is not true or false"),
    ):
        with pytest.raises(SystemExit):
            train_stage1.parse_args(["--config", save(tmp_path, **changes)])
        assert message in capsys.readouterr().err


def test_resume_takes_the_run_that_is_meant(tmp_path, capsys):
    """By its name in --output_dir or by a file in it; another name is an error with a suggestion."""
    run = tmp_path / "stage1_experiment_20261122_100000"
    run.mkdir()
    save(run, epochs=7, output_dir=str(tmp_path))
    assert train_stage1.parse_args(["--config", str(run)]).config == str(run / "config.json")
    (run / "best_f1.pth").touch()
    with pytest.raises(SystemExit):
        train_stage1.parse_args(["--resume", str(run / "best_f1.pth")])
    assert f"only last.pth holds what resuming needs: pass {run}" in capsys.readouterr().err
    for given in (run, run.name, run / "last.pth"):
        args = train_stage1.parse_args(["--output_dir", str(tmp_path), "--resume", str(given)])
        assert args.resume == str(run) and args.epochs == 7
    with pytest.raises(SystemExit) as stop:
        train_stage1.parse_args(["--output_dir", str(tmp_path), "--resume", run.name[:-1]])
    assert stop.value.code == 2
    assert f"there is no run {run.name[:-1]}; did you mean {run.name}?" in capsys.readouterr().err


def test_a_run_that_saved_nothing_cannot_be_resumed(tmp_path, capsys):
    """It was killed in its first epoch, or before that, while the images were decoded."""
    run = tmp_path / "stage1_experiment_20261122_100000"
    run.mkdir()
    (run / "train.log").touch()
    for remedy in ("begin again with the same flags", f"begin again with --config {run}"):
        with pytest.raises(SystemExit) as stop:
            train_stage1.parse_args(["--resume", str(run)])
        said = f"error: --resume {run}: nothing was saved in it yet, so {remedy}\n"
        assert stop.value.code == 2 and capsys.readouterr().err.endswith(said)
        save(run)
        (run / "last.pth").unlink()


def test_resume_refuses_what_would_make_it_another_run(tmp_path, capsys):
    save(tmp_path, epochs=7, learning_rate=0.5, scheduler="step")
    resumed = train_stage1.parse_args(["--resume", str(tmp_path), "--epochs", "9", "--num_workers", "2"])
    assert (resumed.epochs, resumed.num_workers, resumed.learning_rate) == (9, 2, 0.5)
    with pytest.raises(SystemExit):
        train_stage1.parse_args(["--resume", str(tmp_path), "--learning_rate", "0.1", "--seed", "1"])
    error = capsys.readouterr().err
    assert "--learning_rate: recorded 0.5, typed 0.1" in error and "--seed: recorded 42, typed 1" in error
    save(tmp_path, scheduler="cosine")
    with pytest.raises(SystemExit):
        train_stage1.parse_args(["--resume", str(tmp_path), "--epochs", "9"])


def test_epochs_that_shape_the_warm_up_are_kept(tmp_path, capsys):
    config = {"script_name": "train_mae.py", "args": {"epochs": 3, "warmup_epochs": 5, "scheduler": "none"}}
    (tmp_path / "last.pth").touch()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit):
        train_mae.parse_args(["--resume", str(tmp_path), "--epochs", "9"])
    assert "--epochs: recorded 3, typed 9" in capsys.readouterr().err
    config["args"] |= {"epochs": 7}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert train_mae.parse_args(["--resume", str(tmp_path), "--epochs", "9"]).epochs == 9


@pytest.mark.parametrize("script", [train_anomaly_with_labels, train_mae, train_stage1])
def test_help_shows_what_people_turn_and_help_all_the_rest(script, capsys):
    parse_args = script.parse_args
    flags = {f"--{name}" for name in vars(parse_args([]))}
    seen = {}
    for flag in ("--help", "--help_all"):
        with pytest.raises(SystemExit) as end:
            parse_args([flag])
        text = capsys.readouterr().out
        seen[flag] = {name for name in flags if f"  {name}" in text}
        assert end.value.code == 0
    assert 20 <= len(seen["--help"]) <= 28 and {"--epochs", "--fold", "--resume"} <= seen["--help"]
    assert seen["--help_all"] == flags
    assert "--image_size H [W]" in text


def test_a_command_says_that_it_starts_and_other_ranks_and_python_do_not(monkeypatch, capsys):
    parse_args = train_mae.parse_args
    parse_args([])
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("sys.argv", ["train_mae.py", "--epochs", "3"])
    parse_args()
    assert capsys.readouterr().out.startswith("train_mae.py: starting")
    monkeypatch.setenv("RANK", "1")
    parse_args()
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "0")
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert parse_args().epochs == 3
        with contextlib.suppress(OSError):
            full.close()
