"""python -m datasets.samples: a sample anywhere, the same for the same seed, and pictures of it."""

import json

import pytest

from datasets.samples import __main__ as tool
from utils.run.errors import CommandError
from utils.run.script import run_script


def run(*argv):
    tool.main(tool.parse_args([str(one) for one in argv]))


def test_a_sample_is_written_where_one_wants_it_with_pictures_of_it(tmp_path, capsys):
    folder, pictures = tmp_path / "new" / "sample", tmp_path / "pictures"
    run("jrdb", folder, "--size", "tiny", "--seed", 3, "--preview", "--picture_dir", pictures)
    done = json.loads((folder / "SYNTHETIC.json").read_text())
    assert (done["kind"], done["size"], done["seed"]) == ("jrdb", "tiny", 3)
    assert len(list(pictures.glob("preview_jrdb_*.png"))) == 3
    before = (folder / "SYNTHETIC.json").stat().st_mtime_ns
    run("jrdb", folder, "--size", "tiny", "--seed", 3)
    assert (folder / "SYNTHETIC.json").stat().st_mtime_ns == before  # there already
    assert f"sample jrdb: tiny, seed 3, in {folder}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["jrbd", "x"], "'jrbd': no such kind; known: anovox, jrdb, ultrasound; did you mean jrdb?"),
        (["ultrasound", "x", "--size", "smal"], "sizes: tiny, .*did you mean small?"),
        (["jrdb"], "the following arguments are required: DIR"),
        (["jrdb", "x", "--sed", "1"], "--sed.*did you mean --seed"),
    ],
)
def test_wrong_words_are_answered_with_the_right_ones(argv, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        run_script(tool.main, tool.parse_args(argv))
    answer = capsys.readouterr().err
    assert all(part in answer for part in said.split(".*")) and len(answer.splitlines()) <= 5


def test_somebodys_files_in_a_sample_are_left_alone(tmp_path):
    folder = tmp_path / "sample"
    for seed in (0, 1):
        run("ultrasound", folder, "--size", "tiny", "--seed", seed)
    mine = folder / "notes.txt"
    for path, text in (mine, "three years"), (folder / "TA" / "split.json", "{}"):
        before = path.read_text() if path.exists() else None
        path.write_text(text)
        with pytest.raises(CommandError, match="in the way of the built-in sample, with files that are not"):
            run("ultrasound", folder, "--size", "tiny")
        assert path.read_text() == text
        path.write_text(before) if before else path.unlink()
    about = json.loads((folder / "SYNTHETIC.json").read_text())
    del about["files"]  # as of an earlier version, which kept no hash
    (folder / "SYNTHETIC.json").write_text(json.dumps(about | {"version": 0}))
    run("ultrasound", folder, "--size", "tiny")
    assert json.loads((folder / "SYNTHETIC.json").read_text())["version"] > 0


def test_somebodys_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(CommandError, match="(?s)in the way of the built-in sample.*another folder"):
        run("jrdb", tmp_path, "--size", "tiny")
    assert (tmp_path / "thesis.txt").read_text() == "three years"
    with pytest.raises(CommandError, match="can be written to .*thesis.txt"):
        run("jrdb", tmp_path / "thesis.txt" / "sample", "--size", "tiny")
