"""What looks wrong in label files or boxes that could be read: counts and warnings for the log."""

import numpy as np

from datasets.jrdb.frames import PANORAMA_SIZE
from datasets.jrdb.labels import TOLD, Sequence
from utils.run.errors import some
from utils.run.log import LOG


def tell_counts(sequences: list[Sequence], where: str, remedy: str) -> None:
    """Log what was found in `where`. Warn of what looks wrong: notes of the reader, images
    that are no panoramas, interactions of people who are not there, boxes that are centres or halves or leave
    the panorama and, with a `remedy`, no box in its lower half, where people stand, or its right half."""
    totals = {name.replace("_", " "): sum(sequence.counts[name] for sequence in sequences) for name in TOLD}
    assumed = [s for s in sequences if s.size_source.startswith("no image")]
    totals["panoramas without an image, taken to be {}x{}".format(*PANORAMA_SIZE)] = len(assumed)
    if any(totals.values()):
        LOG.info(f"{where}: " + ", ".join(f"{count} {name}" for name, count in totals.items() if count))
    cut = [s for s in sequences if s.counts["clipped_boxes"] > 0.1 * len(s.boxes)]
    high = [s for s in sequences if len(s.boxes) and 2 * s.boxes[:, [1, 3]].sum(axis=1).max() < s.height]
    left = [s for s in sequences if len(s.boxes) > 19 and 2 * s.boxes[:, [0, 2]].sum(axis=1).max() < s.width]
    clipped, boxes = sum(s.counts["clipped_boxes"] for s in cut), sum(len(s.boxes) for s in cut)
    sunk = [s for s in sequences if look_like_centres(s)]
    corner = "x, y must be the upper left corner of a box"
    for what, odd, advice in (
        (f"{clipped} of {boxes} boxes leave", cut, f"{remedy} ({corner})".lstrip()),
        ("no box is in the lower half of", high, remedy), ("no box is in the right half of", left, remedy),
        ("taller people do not reach higher in", sunk, f"{corner}, not its centre"),
    ):  # fmt: skip
        if odd and advice:
            panorama = f"{odd[0].width}x{odd[0].height} panorama (size from {odd[0].size_source})"
            LOG.warning(f"{some([s.name for s in odd], 3)}: {what} the {panorama}: {advice}")
    for note in sorted({note for sequence in sequences for note in sequence.notes}):
        LOG.warning(f"{some([s.name for s in sequences if note in s.notes], 3)}: {note}")
    if lost := [s.name for s in sequences if s.counts["missing_partners"] > 0.2 * len(s.pairs)]:
        remedy = "are `pair` and the other's `label_id` written alike? Such pairs count as not interacting"
        LOG.warning(f"{some(lost, 3)}: many interactions with nobody of the frame: {remedy}")
    if 0 < len(bare := [s.name for s in sequences if not len(s.pairs)]) < len(sequences):
        remedy = "leave it out if it is not annotated, as JRDB-Act: else all its pairs are negatives"
        LOG.warning(f"{some(bare, 3)}: nobody interacts, unlike in the other sequences: {remedy}")
    if halves := {s.name: count for s in sequences if (count := count_halves(s)) > 1}:  # one may be chance
        remedy = "make one box of the two, x + w beyond the width; else each half counts as a person"
        LOG.warning(f"{some(halves, 3)}: the seam cuts {sum(halves.values())} boxes in two: {remedy}")
    shapes = {f"{s.name} {s.width}x{s.height}": s.width / s.height for s in sequences}
    if plain := [name for name, shape in shapes.items() if shape < 4.5 and abs(shape - 2) > 0.05]:
        remedy = "pad images at the right, to width * 360 / angle of view"
        LOG.warning(f"{some(plain, 3)}: left and right edge count as adjacent; if not all around, {remedy}")


def count_halves(sequence: Sequence) -> int:
    """How many boxes at the left edge go on, in about the same rows of the frame, at the right edge, as those
    of a detector that knows no seam."""
    (x, y, w, h), frames = sequence.boxes.T, sequence.frame_of_row()
    beyond, halves = x + w - sequence.width, 0
    right = np.flatnonzero((beyond > -2) & (beyond <= 0))
    for left in np.flatnonzero(x < 2):
        here = right[(frames[right] == frames[left]) & (right != left)]
        shared = np.minimum(y[left] + h[left], y[here] + h[here]) - np.maximum(y[left], y[here])
        halves += bool((2 * shared > np.maximum(h[left], h[here])).any())
    return halves


def look_like_centres(sequence: Sequence) -> bool:
    """Whether y hardly falls as heights grow. Seen from below eye level, the nearer people are, the higher
    their heads: by .27 to .47 of the height on the real sequences; centres rise by .03 to -.16."""
    top, height = sequence.boxes[:, [1, 3]].T
    whole = (top > 0) & (top + height < sequence.height)
    top, height = top[whole], height[whole]
    varied = len(height) > 19 and height.std() > height.mean() / 5
    return bool(varied and np.polyfit(height, top, 1)[0] > -0.15)
