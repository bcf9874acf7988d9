"""Where a figure of the history is going, with the noise it goes through. Needs neither torch nor numpy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WINDOW = 10  # epochs looked at
FEWEST = 4  # with fewer a line fits almost anything
# 97.5% quantile of Student's t for 2 .. 8 degrees of freedom: a window has at most WINDOW - 2 of them.
STUDENT_T = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}


@dataclass(frozen=True)
class Trend:
    """Least-squares line through the last epochs: change per epoch -+ `reach` (95% interval)."""

    slope: float
    reach: float
    epochs: int  # points the line goes through

    @property
    def clear(self) -> bool:
        """Whether the interval of the slope excludes 0."""
        return abs(self.slope) > self.reach

    def words(self) -> str:
        """'rising 0.012 +- 0.004 per epoch', or that nothing can be told from the noise."""
        if not self.clear:
            return f"no trend beyond its noise ({self.slope:+.2g} +- {self.reach:.2g} per epoch)"
        return (
            f"{'rising' if self.slope > 0 else 'falling'} {abs(self.slope):.2g} +- {self.reach:.2g} per epoch"
        )

    def arrow(self) -> str:
        """One word for a table."""
        return ("rising" if self.slope > 0 else "falling") if self.clear else "noise"


def trend(epochs: Sequence[int], values: Sequence[float | None]) -> Trend | None:
    """The line through the last WINDOW epochs that have a value; None with fewer than FEWEST.

    The interval takes the scatter about the line as independent from epoch to epoch, so it is a rough one:
    slope -+ t * sqrt(residual sum / (n - 2) / sum of squared distances of the epochs from their mean).
    """
    points = [(e, v) for e, v in zip(epochs, values, strict=True) if v is not None and math.isfinite(v)][
        -WINDOW:
    ]
    n = len(points)
    if n < FEWEST:
        return None
    middle, mean = (sum(column) / n for column in zip(*points, strict=True))
    spread = sum((e - middle) ** 2 for e, _ in points)
    slope = sum((e - middle) * (v - mean) for e, v in points) / spread
    scatter = sum((v - mean - slope * (e - middle)) ** 2 for e, v in points)
    return Trend(slope, STUDENT_T[n - 2] * math.sqrt(scatter / (n - 2) / spread), n)
