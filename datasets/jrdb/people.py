"""Who is a person: ids and classes as label files, detectors and trackers write them."""

import re
from functools import lru_cache
from typing import Any

PERSON_TYPES = ("pedestrian", "person", "person_sitting", "cyclist", "human", "people")
MOT_PEOPLE = {"1", "2", "7", "-1", ""}  # MOT16 and later: pedestrian, person on vehicle, static; not given
NO_ID = ("", "-1", "nan", "none", "null", "na", "n/a")


def is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", cell) is not None


@lru_cache(maxsize=None, typed=True)  # few ids, frames and classes in many rows
def whole(cell: Any) -> str:
    """The cell as text; whole numbers lose their decimals (15.0 and 1.5e+01 become 15)."""
    text = str(cell).strip()
    decimals = not text.isdigit() and is_number(text) and float(text).is_integer()
    return str(int(float(text))) if decimals else text


def name_of(cell: Any) -> str:
    """An id, text or number, as text; "" for none (NO_ID, "person", "person:-1") and for anything else."""
    text = whole(cell) if type(cell) in (int, float, str) else ""
    return "" if text.lower() in (*NO_ID, *PERSON_TYPES) or text.endswith(":-1") else text


def natural_order(person: str) -> tuple[int, str]:
    """A sort key that puts pedestrian:9 before pedestrian:10."""
    return len(person), person


def is_person(kind: str) -> bool:
    return kind.strip().lower() in PERSON_TYPES


def kind_of(person: str) -> str:
    """The class in an id of JRDB such as car:5; a bare id is a pedestrian's."""
    return person.rpartition(":")[0] or "pedestrian"


def people_in(kinds: set[str], form: str = "JRDB labels", classes: tuple = ()) -> set[str]:
    """The classes that are people: those with such a name, or the only class; otherwise a ValueError.
    kinds: classes that occur, form: of the file (see box_files.py), classes: that may occur."""
    if form == "MOT":
        if {"0", "1"} <= kinds:
            what = "a person is class 0 of COCO but 1 of MOT, and both occur"
            raise ValueError(f"{what}: keep only people's rows")
        return {"0"} if "0" in kinds else MOT_PEOPLE
    people = {*filter(is_person, (*kinds, *classes))}
    if form.startswith("KITTI"):
        return people
    if not people and len(kinds) > 1:
        named = ", ".join(sorted(kinds)[:8])
        raise ValueError(f"none of the classes {named} is called person: rename or keep only that of people")
    return people or kinds
