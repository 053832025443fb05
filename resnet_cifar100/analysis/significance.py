"""Whether the means of two groups of runs differ by more than chance."""

import math
import statistics
from collections.abc import Sequence

import numpy as np


def p_value(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the chance of means this far apart were there no difference.

    None for single runs, and where nothing varies.
    Welch's t-test, two-sided (Welch 1947, https://doi.org/10.1093/biomet/34.1-2.28).
    """
    if min(len(first), len(second)) < 2:
        return None
    gap = abs(statistics.mean(first) - statistics.mean(second))
    errors = [statistics.variance(values) / len(values) for values in (first, second)]
    if sum(errors) == 0:
        return None
    freedom = sum(errors) ** 2 / sum(
        error**2 / (len(values) - 1) for error, values in zip(errors, (first, second), strict=True)
    )
    # With t = sqrt(freedom) tan(angle) the density of Student's t is a power of the cosine.
    angle = math.atan(gap / math.sqrt(sum(errors) * freedom))
    whole, tail = (
        np.trapezoid(np.cos(grid) ** (freedom - 1), grid)
        for grid in (np.linspace(start, math.pi / 2, 20_001) for start in (0.0, angle))
    )
    return float(tail / whole)
