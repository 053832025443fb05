"""How fast a training step is beside the plain loop, and how near to the machine's peak.

    python -m benchmarks.train_step [--device cpu] [--models resnet44v2,speednet,...]

The networks are measured in the settings of the recipe that they belong to, at each of its image
sizes; resnet44v2 in both of its recipes.
"""

import dataclasses
import json
import statistics
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch

from benchmarks.images import training_split
from benchmarks.measure import (
    MATRIX_SIZES,
    Block,
    matrix_rate,
    mean_of_turns,
    speed_ratios,
    spread,
    take_turns,
)
from benchmarks.our_loop import dtype_of, forget, step_block, step_flop, steps_by_size
from benchmarks.page import Asked, Table, main
from benchmarks.plain_loop import PlainSettings, fresh_process, training_block
from resnet_cifar100.config import Config
from resnet_cifar100.recipes import create_recipe

PLAIN = "plain loop"
TUNED = "plain loop, bf16, channels_last, more workers"

SPEED_HEAD = ["Ratio to the plain loop", "GFLOP/s", "Share of the matrix product"]
HOW_PLAIN = (
    "The plain loop: DataLoader with two workers, crop and flip with Pillow one image at a time, "
    "eager, fp32, NCHW, SGD, in a process of its own. Ours: the step of `train.py` with its "
    "loader, channels_last where no other layout is named, on a CPU with the kernels of kernels/ "
    "but for --no-kernels and NCHW. On a GPU the plain loop multiplies in TF32 where torch does so "
    "by itself, and our step is captured in a CUDA graph, compiled or not."
)
HOW_TURNS = (
    "Medians over {rounds} rounds in which all rows of one image size take turns; two before them "
    "are not counted. Ratios are of two variants within a round: median, and lowest to highest."
)
HOW_SHARE = (
    "Nominal FLOP are six for each multiply-add of the forward pass, as if every convolution were "
    "done as it is defined; the share is of the matrix product above in the same precision, and an "
    "algorithm that saves products can exceed 100%."
)


@dataclass(frozen=True)
class Subject:
    """One network in its settings, and the precisions in which it is compiled too."""

    config: Config
    compiled: tuple[str, ...]


@dataclass
class Variant:
    """A row of the table, and the seconds of a step in each round."""

    name: str
    precision: str
    block: Block
    seconds: list[float] = dataclasses.field(default_factory=list)


Measured = dict[int, list[Variant]]  # by image size
Rates = Mapping[str, float]  # FLOP/s of the matrix product by precision


def subjects(asked: Asked) -> dict[str, Subject]:
    """Return what is measured under each name; compiled in fp32 too is resnet44v2 on a CPU."""
    reference = dataclasses.replace(create_recipe("reference"), device=asked.device)
    fast = dataclasses.replace(create_recipe("fast"), device=asked.device)
    fast_resnet = dataclasses.replace(create_recipe("fast_resnet44v2"), device=asked.device)
    auto = (asked.precision,)
    both = tuple(asked.precisions) if asked.device == "cpu" else auto
    return {
        "resnet44v2": Subject(reference, both),
        "fast_resnet44v2": Subject(fast_resnet, auto),
        "resnet18": Subject(dataclasses.replace(reference, model="resnet18"), auto),
        "speednet": Subject(fast, auto),
    }


def variants(
    subject: Subject, image_size: int, asked: Asked, process: ProcessPoolExecutor
) -> list[Variant]:
    """Return what takes turns at one image size, the plain loop first."""
    plain = plain_settings(subject.config, image_size)
    found = [Variant(PLAIN, "fp32", training_block(process, plain))]
    if asked.device == "cuda" and asked.precision == "bf16":
        tuned = dataclasses.replace(plain, is_tuned=True)
        found.append(Variant(TUNED, "bf16", training_block(process, tuned)))
    for is_compiled in (False, True):
        precisions = asked.precisions
        if is_compiled:
            precisions = [
                p for p in precisions if p in subject.compiled and not asked.compile_fault
            ]
        for precision in precisions:
            config = dataclasses.replace(subject.config, precision=precision, compile=is_compiled)
            name = f"ours, {'compiled' if is_compiled else 'eager'}, {precision}"
            found.append(Variant(name, precision, step_block(config, image_size)))
    eager = dataclasses.replace(subject.config, compile=False, kernels=False)
    for precision in asked.precisions if asked.device == "cpu" else ():
        block = step_block(dataclasses.replace(eager, precision=precision), image_size)
        found.append(Variant(f"ours, eager, {precision}, --no-kernels", precision, block))
    config = dataclasses.replace(eager, precision=asked.precision)
    block = step_block(config, image_size, torch.contiguous_format)
    found.append(Variant(f"ours, eager, {asked.precision}, NCHW", asked.precision, block))
    return found


def plain_settings(config: Config, image_size: int) -> PlainSettings:
    """Return the plain loop that does the work of `config` at an image size."""
    return PlainSettings(
        model=dataclasses.replace(config.model_config, image_size=image_size),
        batch_size=config.batch_size,
        padding=config.crop_padding,
        device=config.device,
    )


def measure(subject: Subject, asked: Asked, process: ProcessPoolExecutor) -> Measured:
    """Return the measured variants at each image size."""
    measured = {}
    for image_size in subject.config.image_sizes:
        of_size = variants(subject, image_size, asked, process)
        turns = take_turns(
            {variant.name: variant.block for variant in of_size},
            rounds=asked.rounds,
            turn_seconds=asked.turn_seconds,
        )
        for variant in of_size:
            variant.seconds = mean_of_turns(turns)[variant.name]
        measured[image_size] = of_size
    return measured


def step_rows(subject: Subject, measured: Measured, rates: Rates) -> list[list[str]]:
    """Return (side, variant, images/s, ratio to the plain loop, GFLOP/s, share)."""
    rows = []
    for image_size, of_size in measured.items():
        flop = step_flop(subject.config, image_size)
        for variant in of_size:
            seconds = statistics.median(variant.seconds)
            rows.append(
                [
                    str(image_size),
                    variant.name,
                    f"{subject.config.batch_size / seconds:,.0f}",
                    spread(speed_ratios(variant.seconds, of_size[0].seconds)),
                    f"{flop / seconds / 1e9:,.0f}",
                    f"{flop / seconds / rates[variant.precision]:.1%}",
                ]
            )
    return rows


def schedule_rows(subject: Subject, measured: Measured, rates: Rates) -> list[list[str]]:
    """Return (variant, seconds, ratio, GFLOP/s, share) of all steps of a run.

    Each image size counts as often as the recipe has steps of it.
    """
    counts = {size: len(steps) for size, steps in run_steps(subject.config).items()}
    flop = sum(count * step_flop(subject.config, size) for size, count in counts.items())
    totals: dict[str, float] = {}
    precisions: dict[str, str] = {}
    for size, of_size in measured.items():
        for variant in of_size:
            seconds = counts[size] * statistics.median(variant.seconds)
            totals[variant.name] = totals.get(variant.name, 0.0) + seconds
            precisions[variant.name] = variant.precision
    return [
        [
            name,
            f"{seconds:,.1f}",
            f"{totals[PLAIN] / seconds:.2f}",
            f"{flop / seconds / 1e9:,.0f}",
            f"{flop / seconds / rates[precisions[name]]:.1%}",
        ]
        for name, seconds in totals.items()
    ]


def tables(asked: Asked) -> Iterator[Table]:
    """Yield the matrix product, a table for each network, and whole runs of those that resize."""
    device = torch.device(asked.device)
    rates: Rates = {name: matrix_rate(dtype_of(name), device) for name in asked.precisions}
    yield matrix_table(asked, rates)
    with fresh_process() as process:
        for name in asked.models:
            yield from network_tables(name, rates, asked, process)
            forget()


def network_tables(
    name: str, rates: Rates, asked: Asked, process: ProcessPoolExecutor
) -> Iterator[Table]:
    """Yield the table of one network, and that of all steps of its recipe."""
    subject = subjects(asked)[name]
    measured = measure(subject, asked, process)
    yield step_table(name, subject, measured, rates, asked)
    yield run_table(name, subject, measured, rates, asked)


def step_table(
    name: str, subject: Subject, measured: Measured, rates: Rates, asked: Asked
) -> Table:
    """Return the table of one network."""
    return Table(
        name=f"train_step_{name}",
        title=f"Training step: {name}, batch {subject.config.batch_size}",
        how=f"{HOW_PLAIN} {HOW_TURNS.format(rounds=asked.rounds)} {HOW_SHARE}",
        head=["Side", "Step", "Images/s", *SPEED_HEAD],
        rows=step_rows(subject, measured, rates),
        samples={
            "settings": json.loads(subject.config.to_json()),
            "matrix_flop_per_s": dict(rates),
            "seconds_per_step": {
                f"{size} px": {variant.name: variant.seconds for variant in of_size}
                for size, of_size in measured.items()
            },
        },
        notes=asked.notes,
    )


def run_table(name: str, subject: Subject, measured: Measured, rates: Rates, asked: Asked) -> Table:
    """Return the table of all steps of a run of one network."""
    return Table(
        name=f"train_step_{name}_run",
        title=f"All training steps of a run: {name}",
        how="The medians of the table above, each image size as often as the recipe has steps of "
        "it: the share of the matrix product over a whole run.",
        head=["Step", "Seconds", *SPEED_HEAD],
        rows=schedule_rows(subject, measured, rates),
        samples={"steps": {size: len(s) for size, s in run_steps(subject.config).items()}},
        notes=asked.notes,
    )


def matrix_table(asked: Asked, rates: Rates) -> Table:
    """Return the machine's measured peak."""
    return Table(
        name="train_step_matrix",
        title="Matrix product",
        how="The best of five products of two large square matrices. Some libraries multiply fp32 "
        "matrices more slowly than they convolve: shares above 100% are theirs.",
        head=["Precision", "GFLOP/s"],
        rows=[[precision, f"{rate / 1e9:,.0f}"] for precision, rate in rates.items()],
        samples={"size": MATRIX_SIZES[asked.device], "flop_per_s": dict(rates)},
        notes=["On a GPU fp32 products are TF32."] if asked.device == "cuda" else [],
    )


def run_steps(config: Config) -> dict[int, list[int]]:
    """Return the steps of a run over all training images, by image size."""
    return steps_by_size(config, len(training_split().labels) // config.batch_size)


if __name__ == "__main__":
    main({"train_step": tables})
