"""The flags of the age data set: the images, the table and its columns, and the split.

    parser = ScriptParser("train_mae.py", __doc__)
    add_data_arguments(parser)                       # build_datasets(args) in load.py reads them

Imports neither torch nor pandas, so that --help and a mistyped flag answer at once.
"""

import argparse
import difflib
from pathlib import Path

from utils.run import arguments

SAMPLE = "data/sample_ultrasound"  # read without --image_dir
COHORTS = ("healthy", "pathological")
ID_PATTERN = r"^anon_([^_]+)_[^_]+$"
TABLE_NAMES = TABLE_NAME, BIDS_TABLE = "characteristics.xlsx", "participants.tsv"
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".pnm")
DICOM_ENDINGS = (".dcm", ".dicom")
TEST_SIZE, VAL_SIZE = 0.2, 0.1  # defaults of --test_size and --val_size
PROBLEMS = {
    "bad_ids": "rows without a usable id",
    "bad_ages": "rows without a usable age",
    "far_ages": "rows with a repeated age far from all others",
    "bad_groups": "rows without a group",
    "duplicate_ids": "ids with more than one row",
    "unknown_names": "image files whose name holds no subject id",
    "images_without_row": "images whose subject has no row",
    "rows_without_image": "rows whose subject has no image",
    "unreadable_images": "image files that cannot be read",
    "duplicate_images": "images found under more than one subject",
}
# Common names of the required columns; proposed when the table lacks the name that the flag gives.
USUAL = {
    "id": r"\b(id|subject|patient|participant|number|nr|no|case)\b|id$|\u7f16\u53f7|\u7de8\u865f",
    "age": r"age\b|\b(alter|edad|leeftijd|idade|eta)\b|\u5e74\u9f84|\u5e74\u9f61|\u5e74\u9f62",
}
# Units of age, how many make a year, and how people write them; any other word is a unit of its own.
PER_YEAR = {"years": 1.0, "months": 12.0, "weeks": 365.25 / 7, "days": 365.25}
WORDS = {
    "years": "y yr yrs year years yo jahr jahre jahren jaar ans anni a\u00f1os anos \u5c81 \u6b72 \u6b73",
    "months": "m mo mos mths mon month months monat monate monaten maanden mois mesi meses \u6708 "
    "\u4e2a\u6708",
    "weeks": "w wk wks week weeks woche wochen weken semanas semaines \u5468",
    "days": "d day days tag tage tagen dagen jours dias \u5929 \u65e5",
}


def named_unit(word: str) -> str | None:
    """The unit that a word stands for, or None. In Chinese, 'age' may follow it."""
    word = word.casefold().removesuffix("\u9f84")
    return next((unit for unit, words in WORDS.items() if word in words.split()), None)


def target_unit(text: str) -> str:
    """The type of --target_unit: 'Month' is months, 'trimesters' a unit of its own, 'mnths' a mistake."""
    close = difflib.get_close_matches(arguments.some_text(text).casefold(), WORDS, 1, cutoff=0.7)
    if close and not named_unit(text):
        raise argparse.ArgumentTypeError(f"{text!r}: did you mean {close[0]}? ({', '.join(WORDS)}, ...)")
    return named_unit(text) or text


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the groups "images", "table" and "split", which both age scripts share."""
    amount, fraction = arguments.non_negative_float, arguments.fraction
    switch = argparse.BooleanOptionalAction
    # fmt: off
    add = parser.add_argument_group("images").add_argument
    add("--image_dir", type=arguments.place,
        help="folder of images, such as TA/Healthy/Images, or with a folder per subject; default: the sample")
    add("--cohort", choices=[*COHORTS, "both"], default="healthy", help="whose images are read")
    add("--id_pattern", default=ID_PATTERN,
        help="regular expression for the file name without its ending, or if it contains a / for the path "
        "below --image_dir; one group, the id, or with --visit_column two, id and visit")
    add("--image_size", action=arguments.ImageSize, default=[224, 224], help="pixels of the model's input")
    add("--intensity_range", type=amount, nargs=2, metavar=("LOW", "HIGH"),
        help="grey values that become black and white in images of more than 8 bits; default: 0 and the "
        "largest value of the bit depth that the train images need")
    add("--colour", action=switch, default=False, help="keep the colours instead of reading luminance")
    add("--mask_text", action=switch, default=False, help="blank the burnt-in text and the ruler")
    add("--sample", choices=["standard", "no_signal", "shortcut"], default="standard",
        help="which built-in sample to use without --image_dir")
    add = parser.add_argument_group("table").add_argument
    add("--excel_path", type=arguments.place, help="table of ids and ages (.xlsx, .csv, .tsv); default: "
        "characteristics.xlsx two folders up, or participants.tsv in --image_dir")
    add("--sheet", help="sheet of the table; default: Blad1, or else the only one with the columns")
    add("--header_row", type=arguments.positive_int, help="row of the column names; default: searched for")
    add("--id_column", default="Number", help="name of the column of subject ids")
    add("--age_column", default="Age", help="name of the column of ages")
    # type=str: '' means none, where the run has one.
    add("--visit_column", type=str, help="name of the column of visits, if each row is a visit with its age")
    add("--file_column", type=str, help="name of the column of image files, if each row is an image")
    add("--group_column", type=str, help="name of the column of sites or devices, to report and to split by")
    add("--numeric_ids", action=switch, default=False, help="ids are numbers: '001' and '1' are one subject")
    add("--target_unit", type=target_unit, default="years", help="unit of the ages; '79Y' is converted to it")
    add("--missing_values", nargs="*", default=[], metavar="VALUE",
        help="values that mean an unknown age, such as 999 or n/a")
    add("--min_age", type=amount, help="leave out younger subjects")
    add("--max_age", type=amount, help="leave out older subjects")
    add("--exclude", nargs="*", default=[], choices=list(PROBLEMS), metavar="KIND",
        help=f"leave out what has these problems instead of refusing it: {', '.join(PROBLEMS)}")
    add("--exclude_more_than_half", action=switch, default=False,
        help="let --exclude leave out more than half of the images")
    add = parser.add_argument_group("split").add_argument
    add("--split_by", choices=["subject", "group"], default="subject",
        help="keep each subject, or each group of --group_column, within one part")
    add("--split_method", type=arguments.place_or("auto", "by_subject_id"), default="auto",
        help="auto (the data's split.json, else by_subject_id), by_subject_id or a JSON file of ids per part")
    add("--test_size", type=fraction, default=TEST_SIZE, help="fraction of the subjects (or groups) for test")
    add("--val_size", type=fraction, default=VAL_SIZE, help="fraction of the remaining ones for val")
    add("--stratify_age", action=switch, default=False, help="give every part its share of every decade")
    # fmt: on


def similar_path(path: Path) -> str:
    """'; did you mean ...?', or how much of the path exists."""
    while not path.parent.is_dir() and path.parent != path.parent.parent:
        path = path.parent
    for close in difflib.get_close_matches(path.name, [child.name for child in path.parent.iterdir()], 1):
        return f"; did you mean {path.parent / close}?"
    return f" ({path.parent} exists, {path.name} in it does not)"
