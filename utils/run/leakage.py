"""Whether a model is judged on its training data, recognised under any name by hashes of its contents."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.run.errors import CommandError, some
from utils.run.folder import read_json
from utils.run.log import LOG

Hashes = Mapping[str, Sequence[str]]  # group -> hash of everything in it, then a hash of each item


def shared(trained: Hashes, judged: Hashes) -> dict[str, str]:
    """{group of `judged`: the group of `trained` that it shares an item with}."""
    owner = {item: name for name, (_, *items) in trained.items() for item in items}
    return {name: owner[item] for name, (_, *items) in judged.items() for item in items if item in owner}


def refuse_judged(run: Path, data: Any, flag: str, by_name: bool) -> None:
    """CommandError if val or test hold anything that the run behind `flag` was trained on, by its content.
    by_name: both runs read the same data, so that groups are compared by name too."""
    if not (run / "split.json").is_file() or not (run / "hashes.json").is_file():
        LOG.warning(f"{run} lacks split.json or hashes.json: whether {flag} has seen val or test is unknown")
        return
    names, hashes = read_json(run / "split.json")["train"], read_json(run / "hashes.json")
    judged = [name for part in ("val", "test") for name in data.split[part]]
    copies = shared({name: hashes[name] for name in names}, {name: data.hashes[name] for name in judged})
    seen = [name for name in judged if name in copies or (by_name and name in names)]
    if seen:
        recorded = read_json(run / "config.json")["args"]
        same = f"--fold {recorded['fold']} --seed {recorded['seed']}" if recorded.get("fold") else "no --fold"
        raise CommandError(
            f"Leakage: the run behind {flag} was trained on {len(seen)} of the {len(judged)} groups in val "
            f"and test: {some(seen, 3)}\n  {run}, with {same}\n"
            f"  split both alike (--fold, --seed, --split_method), or give another {flag}"
        )
