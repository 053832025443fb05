"""What a training step keeps the device busy with: its kernels, by kind and the longest of them.

    python -m benchmarks.step_kernels [--device cpu] [--models resnet44v2,speednet,...]

On a GPU the kernels of a replayed CUDA graph, compiled where the recipe is; on a CPU the operators
of the eager step. It says what bounds a step: too many small kernels, too little
arithmetic in each, or a device that waits.
"""

import dataclasses
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import wait_for
from benchmarks.our_loop import forget, ready_state, step_block
from benchmarks.page import Asked, Table, main
from benchmarks.train_step import subjects
from resnet_cifar100.config import Config

STEPS = {"cpu": 3, "cuda": 20}  # under the profiler
LONGEST = 8  # kernels of each step that are named
# By the first pattern that is found in the name of a kernel (CUDA) or of an operator (CPU).
KINDS = {
    "Fused by the compiler": r"^triton",
    "Convolutions": r"conv|winograd|tiles|cudnn.*(fprop|dgrad|wgrad)|implicit_gemm|xmma_(f|d|w)",
    "Matrix products": r"gemm|nvjet|cutlass|splitk|::(badd|add)?b?mm\b|::dot\b",
    "Norms": r"batch_?norm|norm_gradients|normalise|bn_(fw|bw)|layer_?norm",
    "Lists of tensors": r"multi_tensor|foreach|fused_sgd",
    "Copies": r"memcpy|memset|copy|::(cat|stack|fill_|zero_)\b|catarray|fillfunctor",
}
REST = "Element by element and others"
HOW = (
    "Each recipe's step as `train.py` takes it, {form}, in {precision}. Time is that of {steps} "
    "steps under PyTorch's profiler, a step; kinds are told by the names of {kernels}. Busy is the "
    "sum of all {kernels} against the time of a step without the profiler, the median of {rounds} "
    "turns: below 100% the device waits, above it the profiler or parallel kernels add to the sum."
)
HOW_LONGEST = "The {longest} of each step above that take longest, calls of the same name together."


@dataclass(frozen=True)
class Kernel:
    """All calls of one name: how many in a step, and their milliseconds in a step."""

    name: str
    calls: float
    ms: float

    @property
    def kind(self) -> str:
        """The first of KINDS whose pattern is in the name."""
        found = (kind for kind, pattern in KINDS.items() if re.search(pattern, self.name, re.I))
        return next(found, REST)


def profiled(config: Config, image_size: int) -> list[Kernel]:
    """Return what one step runs at an image size, the longest first."""
    device = ready_state(config)[0].runtime.device
    block = step_block(config, image_size)
    steps = STEPS[device.type]
    is_cuda = device.type == "cuda"
    activity = ProfilerActivity.CUDA if is_cuda else ProfilerActivity.CPU
    block(1)
    with profile(activities=[activity]) as profiler:
        block(steps)
        wait_for(device)
    kernels = []
    for event in profiler.key_averages():
        if is_cuda != (event.device_type == DeviceType.CUDA):
            continue
        us = event.self_device_time_total if is_cuda else event.self_cpu_time_total
        kernels.append(Kernel(event.key, event.count / steps, us / steps / 1e3))
    return sorted((kernel for kernel in kernels if kernel.ms), key=lambda k: -k.ms)


def kind_cells(kernels: list[Kernel], step_ms: float) -> list[str]:
    """Return (kernels, mean us, busy, ms of each kind with the number of its kernels)."""
    calls, ms = (sum(values) for values in zip(*((k.calls, k.ms) for k in kernels), strict=True))
    cells = [f"{calls:,.0f}", f"{1e3 * ms / calls:,.1f}", f"{ms / step_ms:.0%}"]
    for kind in (*KINDS, REST):
        of_kind = [kernel for kernel in kernels if kernel.kind == kind]
        ms, calls = sum(k.ms for k in of_kind), sum(k.calls for k in of_kind)
        cells.append(f"{ms:,.2f} ({calls:,.0f})" if of_kind else "-")
    return cells


def tables(asked: Asked) -> Iterator[Table]:
    """Yield the table of kinds and that of the longest kernels."""
    is_cuda = asked.device == "cuda"
    kinds, longest, samples = [], [], {}
    for name in asked.models:
        config = subjects(asked)[name].config
        is_compiled = is_cuda and config.compile and not asked.compile_fault
        config = dataclasses.replace(config, precision=asked.precision, compile=is_compiled)
        for image_size in config.image_sizes:
            block = step_block(config, image_size)
            block(1)
            seconds = [block(STEPS[asked.device])[0] for _ in range(asked.rounds)]
            step_ms = 1e3 * statistics.median(seconds)
            kernels = profiled(config, image_size)
            label = [f"{name}, compiled" if is_compiled else name, str(image_size)]
            kinds.append([*label, f"{step_ms:,.2f}", *kind_cells(kernels, step_ms)])
            for kernel in kernels[:LONGEST]:
                cells = [f"{kernel.calls:,.1f}", f"{kernel.ms:,.3f}", f"{kernel.ms / step_ms:.1%}"]
                longest.append([*label, kernel.name[:90], kernel.kind, *cells])
            samples[f"{name}, {image_size} px"] = {
                "step_seconds": seconds,
                "kernels": [dataclasses.asdict(kernel) for kernel in kernels],
            }
        forget()
    kernel_word = "kernels" if is_cuda else "operators"
    how = HOW.format(
        form="replayed" if is_cuda else "eager",
        precision=asked.precision,
        steps=STEPS[asked.device],
        kernels=kernel_word,
        rounds=asked.rounds,
    )
    head = [kernel_word.capitalize(), "Mean, us", "Busy", *KINDS, REST]
    yield Table(
        name="step_kernels",
        title=f"{kernel_word.capitalize()} of a training step, by kind",
        how=f"{how} In the columns of the kinds: milliseconds, and in brackets how many.",
        head=["Recipe", "Side", "Step, ms", *head],
        rows=kinds,
        samples=samples,
        notes=asked.notes if is_cuda else [],
    )
    yield Table(
        name="step_kernels_longest",
        title=f"The longest {kernel_word}",
        how=HOW_LONGEST.format(longest=LONGEST),
        head=["Recipe", "Side", "Name", "Kind", "Calls", "ms", "Of the step"],
        rows=longest,
        samples={},
    )


if __name__ == "__main__":
    main({"step_kernels": tables})
