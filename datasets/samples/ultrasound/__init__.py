"""The built-in muscle ultrasound sample: synthetic people and images in the published layout.

    TA/characteristics.xlsx  TA/split.json  TA/Healthy/{Images,Masks}/anon_ID_k.png
    TA/Pathological/{Images,Masks}/...      BB/characteristics.xlsx  BB/Healthy/{Images,Masks}/...
    SYNTHETIC.json

Ids repeat between cohorts and between muscles, as in the published set; a few rows have no image and a few
images no row. SYNTHETIC.json holds the oracle errors (people.py). Sizes: "small" is the default, "tiny" is
for tests. With the suffix "_no_signal" the images do not depend on the ages; with "_shortcut" text and gain
give away the age, but only in the train part.
"""

from collections.abc import Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np
import openpyxl
from PIL import Image

from datasets.cache import count_processes, in_processes
from datasets.samples import write_json
from datasets.samples.ultrasound.image import HEIGHT, WIDTH, Anatomy, render
from datasets.samples.ultrasound.people import Person, draw_people, oracle_errors
from datasets.splits import split_groups

VERSION = 1
# Healthy TA subjects, pathological TA subjects, BB subjects, size of the images (width, height).
_SIZES = {"tiny": (16, 2, 1, (168, 160)), "small": (210, 8, 6, (WIDTH, HEIGHT))}
SIZES = tuple(size + variant for size in _SIZES for variant in ("", "_no_signal", "_shortcut"))
STATEMENT = "Generated pictures of people who do not exist, made for trying out this code."


def generate(directory: Path, size: str = "small", seed: int = 0) -> None:
    """Write the sample into an empty folder. The same size and seed give the same files."""
    base, _, variant = size.partition("_")
    healthy, pathological, other_muscle, resolution = _SIZES[base]
    rng = np.random.default_rng([seed, VERSION])
    people = draw_people(healthy, rng, signal=variant != "no_signal")
    decades = {person.name: int(person.age // 10) for person in people}
    split = split_groups(decades, 0.2, 0.12, seed, stratify=decades)
    groups = {("TA", "Healthy"): people, ("TA", "Pathological"): draw_people(pathological, rng)}
    groups["BB", "Healthy"] = draw_people(other_muscle, rng)
    revealed = set(split["train"]) if variant == "shortcut" else set()
    jobs = []
    for names, members in groups.items():
        folder = directory.joinpath(*names)
        for kind in ("Images", "Masks"):
            (folder / kind).mkdir(parents=True)
        told = revealed if members is people else ()
        jobs += [(folder, person, person.age if person.name in told else None) for person in members]
    list(in_processes(partial(_write_images, resolution), jobs, count_processes(jobs, few=8)))

    # Two images without a row, and rows without an image: real tables never match their folders.
    absent = [(f"{8000 + k}", person) for k, person in enumerate(draw_people(6, rng))]
    images = directory / "TA" / "Healthy" / "Images"
    for k, person in enumerate(people[:2]):
        with Image.open(images / f"anon_{person.name}_1.png") as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(images / f"anon_{9000 + k}_1.png")
    rows = [[(person.name, person) for person in members] for members in groups.values()]
    _write_table(directory / "TA" / "characteristics.xlsx", rows[0] + absent, rows[1])
    _write_table(directory / "BB" / "characteristics.xlsx", rows[2], [])
    write_json(directory / "TA" / "split.json", split, indent=2)
    parts = {part: [person for person in people if person.name in names] for part, names in split.items()}
    oracle = {part: oracle_errors(members, variant != "no_signal") for part, members in parts.items()}
    about = {"synthetic": True, "kind": "ultrasound", "version": VERSION, "size": size, "seed": seed}
    about |= {"statement": STATEMENT, "unit": "years", "oracle": oracle}
    write_json(directory / "SYNTHETIC.json", about, indent=2)


def _write_images(resolution: tuple[int, int], job: tuple[Path, Person, float | None]) -> None:
    """The images and masks of a person; in the shortcut, side, position and gain give away the age shown."""
    folder, person, shown_age = job
    rng = np.random.default_rng(person.seed)
    # Illness looks like age: fat and fibrous tissue replace the fibres early.
    muscle_ages = np.asarray(person.muscle_ages) + (20 if folder.name == "Pathological" else 0)
    anatomy = Anatomy(rng, float(muscle_ages.mean()), person.fatness)
    exam_gain, angle = rng.normal(0, 1.1), rng.normal(0, 1.0)
    name = {"TA": "TIB ANT", "BB": "BIC BRA"}[folder.parent.name]
    for k, muscle_age in enumerate(muscle_ages.tolist(), start=1):
        side, left = str(rng.choice(["LI", "RE"], p=[0.85, 0.15])), int(rng.choice([38, 38, 38, 0]))
        gain = exam_gain + rng.normal(0, 0.4)
        if shown_age is not None:
            side, left, gain = ("LI", "RE")[shown_age > 48], int(shown_age), 3 * (shown_age - 47) / 22
        view = {"muscle_age": muscle_age, "gain": float(gain), "text": f"{name} {side}", "left": left}
        view |= {"move": rng.normal(0, (5, 12)).tolist(), "shade": float(max(rng.normal(5, 8), 0))}
        view["septa"] = float(angle + rng.normal(0, 1.0))
        file = f"anon_{person.name}_{k}.png"
        image, mask = map(Image.fromarray, render(anatomy, int(rng.integers(2**32)), **view))
        if image.size != resolution:
            image = image.resize(resolution, Image.Resampling.BOX)
            mask = mask.resize(resolution, Image.Resampling.NEAREST)
        image.convert("RGB").save(folder / "Images" / file, compress_level=1)  # three equal channels
        mask.save(folder / "Masks" / file, compress_level=1)


def _write_table(path: Path, healthy: Sequence[tuple[str, Person]], pathological: Sequence) -> None:
    """Write both cohorts side by side below two header rows; column F is blank, rows are sorted by number."""
    columns, blank = ["Number", "Age", "Length", "Weight", "Sex"], [None] * 5

    def rows(entries: Sequence[tuple[str, Person]]) -> list[list]:
        ordered = sorted((int(name), person) for name, person in entries)
        return [[number, one.age, one.length, one.weight, one.sex] for number, one in ordered]

    book = openpyxl.Workbook()
    book.active.title = "Blad1"
    book.active.append(["Healthy", *blank, "Pathological", *blank[1:]])
    for left, right in [(columns, columns), *zip_longest(rows(healthy), rows(pathological), fillvalue=blank)]:
        book.active.append([*left, None, *right])
    book.save(path)
