"""The flags of the JRDB data set that both stages share: where it lies, how it is split, which labels count.

Without torch and numpy, so that --help and a mistyped flag answer at once.
"""

import argparse

from utils.run import arguments

SAMPLE = "data/sample_jrdb"  # what is read without --data_path


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the group "data"."""
    # fmt: off
    add = parser.add_argument_group("data").add_argument
    add("--data_path", help="JRDB folder with labels/ and images/; default: the built-in sample")
    add("--split_method", default="official", help="official, sorted70 or a JSON file of sequence names")
    add("--frame_stride", type=arguments.positive_int, default=1, help="use every Nth labelled frame")
    add("--multi_label", choices=["priority", "first", "drop"], default="priority",
        help="type of a pair with several labels")
    # fmt: on
