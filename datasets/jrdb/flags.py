"""The JRDB flags that both stages share: where the data is, how it is split, which labels count.

Imports neither torch nor numpy, so that --help and a mistyped flag answer at once.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from utils.run import arguments

SAMPLE = "data/sample_jrdb"  # used without --data_path
FRAMES_PER_SECOND = 15.0  # of JRDB


@dataclass
class LabelRules:
    """How annotations are read: the flags of the same names below."""

    multi_label: str = "priority"
    class_map: str | None = None
    pairs_from: str = "interaction"
    max_difficulty: int = 3
    skip_bad_boxes: bool = False
    frame_rate: float = FRAMES_PER_SECOND


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the group "data"."""
    add = parser.add_argument_group("data").add_argument
    # fmt: off
    add("--data_path", type=arguments.place,
        help="JRDB folder with labels/ and images/; default: the built-in sample")
    add("--split_method", type=arguments.place_or("auto", "official", "sorted70"), default="auto",
        help="auto (the data's split.json, else official), official, sorted70 or a JSON file of names")
    add("--frame_stride", type=arguments.positive_int, default=1, help="use every Nth labelled frame")
    # fmt: on
    add_label_arguments(add)


def add_label_arguments(add: Callable) -> None:
    """Add the flags of LabelRules."""
    # fmt: off
    add("--multi_label", choices=["priority", "first", "drop"], default="priority",
        help="type of a pair with several labels")
    add("--class_map", type=arguments.place, metavar="FILE",
        help='JSON file of {"interaction name": "class"}, besides the 21 published names; "*": all others')
    add("--pairs_from", choices=["interaction", "social_group"], default="interaction",
        help="who interacts: H-interaction, or all people of a social group (JRDB-Act, which has no types)")
    add("--max_difficulty", type=int, choices=[1, 2, 3], default=3,
        help="ignore labels of pairs that are more difficult, and people whose group label is")
    add("--skip_bad_boxes", action=argparse.BooleanOptionalAction, default=False,
        help="leave out people whose box has no area or lies outside the panorama")
    add("--frame_rate", type=arguments.positive_float, default=FRAMES_PER_SECOND,
        help="frame numbers per second")
    # fmt: on


def given(args: argparse.Namespace, rules: type) -> dict[str, object]:
    """The flags that are fields of the dataclass `rules`."""
    return {name: vars(args)[name] for name in rules.__dataclass_fields__ if hasattr(args, name)}
