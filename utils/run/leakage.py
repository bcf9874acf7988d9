"""Whether a model is judged on its training data, recognised under any name by hashes of its contents, and
what an earlier run has learned."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.run.errors import CommandError, some
from utils.run.folder import read_json, read_record
from utils.run.log import LOG

Hashes = Mapping[str, Sequence[str]]  # group -> hash of everything in it, then a hash of each item


def shared(trained: Hashes, judged: Hashes) -> dict[str, str]:
    """{group of `judged`: the group of `trained` that it shares an item with}."""
    owner = {item: name for name, (_, *items) in trained.items() for item in items}
    return {name: owner[item] for name, (_, *items) in judged.items() for item in items if item in owner}


def refuse_judged(path: Path, state: Mapping[str, Any], data: Any, flag: str, by_name: bool) -> None:
    """CommandError if val or test hold anything that the checkpoint `path`, given as `flag`, was trained on,
    by its content, which hashes.json beside it records. by_name: both runs read the same data, so that
    groups are compared by name too."""
    names, beside = state["trained_on"]["split"]["train"], path.parent / "hashes.json"
    hashes = read_json(beside, dict) if beside.is_file() else {}
    if not (hashes or by_name):
        LOG.warning(f"{beside} is not there: whether {flag} has seen val or test is unknown")
    judged = [name for part in ("val", "test") for name in data.split[part]]
    trained = {name: hashes[name] for name in names if name in hashes}
    copies = shared(trained, {name: data.hashes[name] for name in judged})
    seen = [name for name in judged if name in copies or (by_name and name in names)]
    if seen:
        recorded = state["args"]
        same = f"--fold {recorded['fold']} --seed {recorded['seed']}" if recorded.get("fold") else "no --fold"
        raise CommandError(
            f"Leakage: the run behind {flag} was trained on {len(seen)} of the {len(judged)} groups in val "
            f"and test: {some(seen, 3)}\n  {path}, with {same}\n"
            f"  split both alike (--fold, --seed, --split_method), or give another {flag}"
        )


def warn_of_verdict(run: Path) -> None:
    """Warn if a run did not end LEARNED."""
    if not (run / "results.json").is_file():
        LOG.warning(f"{run} is not the folder of a finished run: it is unknown what this model has learned")
    elif (results := read_record(run / "results.json", "verdict", "verdict_reason"))["verdict"] != "LEARNED":
        LOG.warning(f"{run} ended {results['verdict']} ({results['verdict_reason']})")
