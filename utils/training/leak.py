"""Whom an earlier run was trained on must not be judged by a run that starts from it."""

from pathlib import Path
from typing import Any

from utils.run.errors import CommandError
from utils.run.folder import read_json
from utils.run.log import LOG


def refuse_judged(run: Path, data: Any, flag: str, by_name: bool) -> None:
    """CommandError where val or test hold what the run behind `flag` was trained on, under whatever name.

    by_name: both read the same data, so that a name stands for the same.
    """
    if not (run / "split.json").is_file() or not (run / "hashes.json").is_file():
        LOG.warning(f"{run} has no split.json: nobody can check that {flag} was not trained on val or test")
        return
    names, held = read_json(run / "split.json")["train"], read_json(run / "hashes.json")
    contents = {item for name in names for item in held[name][1:]}
    judged = [name for part in ("val", "test") for name in data.split[part]]
    shared = [n for n in judged if (by_name and n in names) or contents & set(data.hashes[n][1:])]
    if shared:
        recorded = read_json(run / "config.json")["args"]
        same = f"--fold {recorded['fold']} --seed {recorded['seed']}" if recorded.get("fold") else "no --fold"
        raise CommandError(
            f"Leakage: the run behind {flag} was trained on {len(shared)} of the {len(judged)} that val and "
            f"test hold: {', '.join(shared[:3])}{', ...' if len(shared) > 3 else ''}\n"
            f"  {run}, with {same}\n"
            f"  split both alike (--fold, --seed, --split_method), or give another {flag}"
        )
