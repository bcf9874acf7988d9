"""The flags of the age scripts, as a test sets them."""

import argparse
from typing import Any

from datasets.ultrasound.flags import add_data_arguments


def data_arguments(**changed: Any) -> argparse.Namespace:
    """The flags without a command line: defaults and seed 42, overridden by name in `changed`."""
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    parser.set_defaults(seed=42, cache_dir=None, cache_limit_gb=4.0, check_data=False, fold=None)
    defaults = vars(parser.parse_args([]))
    if unknown := changed.keys() - defaults:
        raise TypeError(f"no such flags: {', '.join(sorted(unknown))}")
    return argparse.Namespace(**defaults | changed)
