"""Every command of the READMEs is understood by the parser it is typed for; both languages show the same
ones."""

import importlib
import json
import re
import shlex

import pandas
import pytest
import torch
from PIL import Image

import prediction
from tests.tiny_runs import flags_of, jrdb, outspoken, run_of, ultrasound
from utils.run.folder import REPO_ROOT, read_json

LANGUAGES = ("README.md", "README.zh.md")
FLAGS_OF_TORCHRUN = re.compile(
    r"--(nproc_per_node|nnodes|rdzv_backend|rdzv_endpoint|standalone|max-restarts|signals-to-handle)\b"
)


def code_lines(name: str) -> list[str]:
    """The indented lines of a README, without the comments behind them."""
    lines = (REPO_ROOT / name).read_text(encoding="utf-8").splitlines()
    return [re.sub(r"\s+#\s.*$", "", line[4:]).strip() for line in lines if line.startswith("    ")]


def commands(name: str) -> list[str]:
    """The commands of one README that start a script of this repo, one by one."""
    parts = [part.strip() for line in code_lines(name) for part in line.split("&&")]
    return [part for part in parts if re.match(r"(nohup |srun )?(python|torchrun) ", part)]


def split_command(command: str) -> tuple[str, list[str]]:
    """The module a command starts and its arguments; SLURM's, nohup's, torchrun's and the shell's own left
    out."""
    command = re.sub(r"\$\{[^}]*\}|\$\([^)]*\)| > .*$| \|\| .*$| &$", "", command)
    words = [word for word in shlex.split(command) if word not in ("nohup", "srun")]
    words = [word for word in words[1:] if not FLAGS_OF_TORCHRUN.match(word)]
    if words[0] == "-m":
        return words[1], words[2:]
    return words[0].removesuffix(".py"), words[1:]


@pytest.mark.parametrize("command", commands("README.md"))
def test_the_parser_takes_the_command(command, tmp_path, monkeypatch):
    name, argv = split_command(command)
    if name == "pytest":
        return
    if name == "datasets.samples":
        name = "datasets.samples.__main__"
    if name == "benchmarks":
        assert importlib.import_module("benchmarks.__main__")
        return
    module = importlib.import_module(name)
    if argv == ["--help"]:
        with pytest.raises(SystemExit) as end:
            module.parse_args(argv)
        assert end.value.code == 0
        return
    if "--config" in argv or "--resume" in argv:
        # The run they name does not exist: only their spelling is tested.
        position = argv.index("--config" if "--config" in argv else "--resume")
        del argv[position : position + 2]
    module.parse_args(argv)


def test_both_languages_show_the_same_commands_and_figures():
    english, chinese = (commands(name) for name in LANGUAGES)
    assert english == chinese and len(english) > 30
    figures = [
        re.findall(r"(?<![\w.])\.\d{2,3}\b|\b\d+\.\d+\b", (REPO_ROOT / name).read_text(encoding="utf-8"))
        for name in LANGUAGES
    ]
    assert sorted(figures[0]) == sorted(figures[1]) and len(figures[0]) > 20


@pytest.mark.parametrize("name", LANGUAGES)
def test_linked_files_exist_and_the_page_stays_short(name):
    text = (REPO_ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https:)([^)#]+)\)", text):
        assert (REPO_ROOT / target).exists(), target
    assert len(text.splitlines()) < 250


def snippet(first: str) -> str:
    """The lines of code, the same in both READMEs, from the one that begins with `first` to a blank one."""
    found = []
    for name in LANGUAGES:
        lines = (REPO_ROOT / name).read_text(encoding="utf-8").splitlines()
        start = next(k for k, line in enumerate(lines) if line.startswith(f"    {first}"))
        block = lines[start : lines.index("", start)]
        found.append("\n".join(re.sub(r"\s+#\s.*$", "", line[4:]) for line in block))
    assert found[0] == found[1]
    return found[0]


def test_the_python_example_runs():
    code = snippet("import prediction")
    for said, real in (
        ("checkpoints/stage1_experiment_...", run_of("train_stage1")),
        ("data/sample_jrdb", jrdb()),
    ):
        assert said in code
        code = code.replace(said, str(real))
    names = {}
    exec(code, names)
    assert len(names["tables"]["predictions"]) > 100 and "groups" in names["tables"]


def test_the_export_example_gives_the_ages_of_predict(tmp_path, monkeypatch, capsys):
    """uint8 of any size in, the same resizing, and no gradient."""
    (export,) = [c for c in commands("README.md") if "--export age.pt2" in c]
    monkeypatch.chdir(tmp_path)
    run = outspoken(run_of("train_mae"), tmp_path, mask_text=True)
    name, argv = split_command(export.replace("checkpoints/age_mae_experiment_...", str(run)))
    module = importlib.import_module(name)
    module.main(module.parse_args([*argv, "--device", "cpu"]))
    assert "on 1 and 7 samples (traced on 3)" in capsys.readouterr().out
    table = prediction.load(run, "cpu").predict(ultrasound())["predictions"]
    expected = table.set_index("file")["prediction"]
    assert expected.std() > 0.1, "all alike: the test tests nothing"
    for file in sorted(ultrasound().iterdir())[:4]:
        Image.open(file).convert("L").save("IMAGE.png")
        names = {}
        exec(snippet("import torch"), names)
        found = names["years"]
        assert found.item() == pytest.approx(expected[file.name], abs=float(0.05 * expected.std()))
        assert not found.requires_grad
    texts = {"about.json": ""}
    torch.export.load("age.pt2", extra_files=texts)
    about = json.loads(texts["about.json"])
    assert list(about["inputs"]) == ["images"] and list(about["outputs"]) == ["ages"]
    assert about["target_unit"] and "bilinear" in about["resize"] and about["script"] == "train_mae.py"


def test_the_loop_over_folds_runs(tmp_path, monkeypatch):
    """As it stands there, on little data; then its comparison and its prediction."""
    loop, compare, predict = snippet("for k in").splitlines()
    values, command = re.fullmatch(r"for k in ([\d ]+); do (.*); done", loop).groups()
    assert values == "1 2 3 4 5"
    monkeypatch.chdir(tmp_path)
    for k in "15":  # the first and the last
        name, argv = split_command(command.replace("$k", k))
        script = importlib.import_module(name)
        few = ["--epochs", "1", "--model", "cnn", "--image_size", "32", "--device", "cpu"]
        script.main(script.parse_args([*map(str, flags_of(name)), *argv, *few]))
    for line in (compare, predict.replace("TA/Healthy/Images", str(ultrasound()))):
        name, argv = split_command(line)
        module = importlib.import_module(name)
        module.main(module.parse_args(argv))
    (table,) = (tmp_path / "visualizations").glob("*.csv")
    folds = pandas.read_csv(table, dtype={"fold": str}).fold.tolist()
    assert folds == ["1/5", "5/5", "all"]
    assert len(pandas.read_csv(tmp_path / "predictions/predictions.csv")) > 40


def test_every_figure_of_a_report_is_in_the_glossary():
    lines = (REPO_ROOT / "docs/glossary.md").read_text(encoding="utf-8").lower().splitlines()
    names = " ".join(line.split("|")[1] for line in lines if line.startswith("|"))
    known = set(re.findall(r"[a-z0-9_+]+", names))
    for name in ("train_stage1", "train_stage2", "train_mae", "train_anomaly_with_labels"):
        results = read_json(run_of(name) / "results.json")
        split = results["metrics"][results["test_split"]]
        unknown = {key for key in split if key.removeprefix("subject_") not in known}
        assert not unknown, f"{name}: {unknown}"
    report = read_json(run_of("train_stage1") / "sampling_report.json")["splits"]["train"]
    assert {"positives_lost_to_distance", "pairs_in_range"} <= known & set(report)
