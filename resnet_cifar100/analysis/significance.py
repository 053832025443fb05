"""Whether the means of two groups of runs differ by more than chance."""

import itertools
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


def holm(p_values: Sequence[float]) -> list[float]:
    """Return each p as it counts among so many: the lowest n-fold, the next (n - 1)-fold, ...

    None gets lower than one before it. Holm 1979, https://www.jstor.org/stable/4615733.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    counted = (min(1.0, (len(order) - i) * p_values[index]) for i, index in enumerate(order))
    corrected = dict(zip(order, itertools.accumulate(counted, max), strict=True))
    return [corrected[index] for index in range(len(order))]
