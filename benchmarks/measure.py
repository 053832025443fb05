"""Measure variants beside each other, so that a busy moment of the machine hits all of them.

A piece is what is repeated: one training step, one batch, one prediction. In each round the
variants take turns, each with as many pieces as fill a turn; the first ones are not counted. What
is reported is the median over the rounds, and the ratio of two variants within the same round.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

# Does that many pieces; returns the seconds of each, or of the mean piece alone.
Block = Callable[[int], list[float]]

MATRIX_SIZES = {"cpu": 4096, "cuda": 8192}
MATRIX_PRODUCTS = {"cpu": 1, "cuda": 20}  # in one reading of the clock


def take_turns(
    blocks: Mapping[str, Block], *, rounds: int, turn_seconds: float
) -> dict[str, list[list[float]]]:
    """Return what each block measured in each round.

    Two rounds of one piece go first, uncounted: one in which all is slow, and one that says how
    many pieces fill `turn_seconds`, at least one.
    """
    for _ in range(2):
        first = {name: statistics.fmean(block(1)) for name, block in blocks.items()}
    turns: dict[str, list[list[float]]] = {name: [] for name in blocks}
    for _ in range(rounds):
        for name, block in blocks.items():
            turns[name].append(block(max(1, round(turn_seconds / first[name]))))
    return turns


def mean_of_turns(turns: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, list[float]]:
    """Return the mean seconds per piece of each variant in each round."""
    return {name: [statistics.fmean(turn) for turn in of_one] for name, of_one in turns.items()}


def seconds_per_piece(piece: Callable[[], object], pieces: int, device: torch.device) -> float:
    """Do `pieces` pieces and return the mean; waits for the device before each look at a clock."""
    wait_for(device)
    started = time.perf_counter()
    for _ in range(pieces):
        piece()
    wait_for(device)
    return (time.perf_counter() - started) / pieces


def wait_for(device: torch.device) -> None:
    """Return once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def speed_ratios(seconds: Sequence[float], to: Sequence[float]) -> list[float]:
    """Return for each round how many times faster the first is than the second."""
    return [theirs / ours for ours, theirs in zip(seconds, to, strict=True)]


def spread(values: Sequence[float]) -> str:
    """Return the median and the range as text."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def matrix_rate(
    dtype: torch.dtype, device: torch.device, *, size: int | None = None, repeats: int = 5
) -> float:
    """Return the FLOP/s of a product of two large square matrices, the best of several.

    On a GPU float32 means TF32 once `create_runtime` has run, as in training.
    """
    side = size or MATRIX_SIZES[device.type]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    seconds = [
        seconds_per_piece(
            lambda: torch.mm(left, right, out=product), MATRIX_PRODUCTS[device.type], device
        )
        for _ in range(repeats)
    ]
    return 2 * side**3 / min(seconds)
