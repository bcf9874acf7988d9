"""Every command of the READMEs is understood by the parser it is typed for; both languages show the same
ones."""

import importlib
import re
import shlex

import pytest

from utils.run.folder import REPO_ROOT

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
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (REPO_ROOT / target).exists(), target
    assert len(text.splitlines()) < 250
