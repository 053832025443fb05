"""What a file with weights says of itself besides them, in plain types: is it to be believed?"""

import math
from collections.abc import Mapping
from typing import Any

_PROVENANCE = {"dataset": str, "metrics": dict, "config": str, "environment": dict}
_UNCALIBRATED = {"temperature": 1.0, "most_strangeness": None, "source": "not calibrated"}


def calibration_of(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file says of its calibration; older files say nothing."""
    return {**_UNCALIBRATED, **description.get("calibration", {})}


def result_of(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the test figures of a finished run; without one none: those of an epoch count not."""
    metrics: dict[str, Any] = provenance["metrics"]
    return metrics if "chosen_by" in metrics else {}


def check_description(description: Mapping[str, Any]) -> None:
    """Refuse what `bundle.describe` would not have written, before anybody relies on it.

    Raises:
        ValueError: says what is wrong.
        KeyError, TypeError, AttributeError: for a part that is missing, or of another kind.
    """
    fine, coarse, groups = (
        description[name] for name in ("fine_names", "coarse_names", "fine_to_coarse")
    )
    if not all(isinstance(name, str) for name in (*fine, *coarse)):
        raise ValueError("a name of a class is not a word")
    if len(fine) != len(groups):
        raise ValueError(f"it names {len(fine)} of {len(groups)} classes")
    if not all(type(group) is int and 0 <= group < len(coarse) for group in groups):
        raise ValueError("a class is of a superclass that it does not name")
    if not isinstance(description["model"]["name"], str):
        raise ValueError("it does not name its network")
    provenance = description["provenance"]
    for part, kind in _PROVENANCE.items():
        if not isinstance(provenance.get(part), kind):
            raise ValueError(f"it does not say by which run it was made: no {part}")
    metrics = {**provenance["metrics"], "chosen_by": 0}
    if not all(math.isfinite(value) for value in metrics.values()):
        raise ValueError("a figure of its run is not a finite number")
    calibration = calibration_of(description)
    limit = calibration["most_strangeness"]
    is_sound = 0 < calibration["temperature"] < math.inf and isinstance(calibration["source"], str)
    if not (is_sound and (limit is None or 0 <= limit < math.inf)):
        raise ValueError("its calibration is not one that `calibrate` writes")
