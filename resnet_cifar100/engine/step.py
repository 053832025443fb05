"""One optimizer update; on a GPU, replayed as one CUDA graph."""

import dataclasses
import gc
import time

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from resnet_cifar100.data.augment import mixed_seed
from resnet_cifar100.engine.sam import perturbed_weights
from resnet_cifar100.engine.schedule import image_size_at, lr_scale_at
from resnet_cifar100.engine.state import TrainState, all_finite, non_finite
from resnet_cifar100.parallel import highest_of_all_processes, rank, world_size
from resnet_cifar100.runtime import in_short


def train_step(state: TrainState, images: Tensor, targets: Tensor) -> None:
    """Update the weights from uint8 images (N,3,H,W) and targets; do not wait for the device."""
    lr_scale = lr_scale_at(state.step, state.config, steps_per_epoch=state.steps_per_epoch)
    image_size = image_size_at(state.step, state.config, steps_per_epoch=state.steps_per_epoch)
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            set_lr(group, lr_scale * group["initial_lr"])
    # What the network draws, as for dropout, depends on the step and the process alone.
    torch.manual_seed(mixed_seed(state.config.seed, state.step, rank(), 0, 1))
    if graph := state.graphs.get(image_size):
        loss, logits = graph.replay(images, targets)
    else:
        loss, logits = update(state, images, targets, image_size)
    if state.ema:
        state.ema.update(state.model, state.step)
    state.losses.update(state.step % state.steps_per_epoch, loss, logits, targets)
    state.step += 1


def update(
    state: TrainState, images: Tensor, targets: Tensor, image_size: int
) -> tuple[Tensor, Tensor]:
    """Move the weights along the gradient of a batch; return the loss () and the logits (N,K).

    Targets are labels, int64 (N,), or shares of the classes, float (N,K).
    """
    config = state.config
    loss, logits = _backward(state, images, targets, image_size)
    if config.sam_rho:
        with perturbed_weights(state.model, config.sam_rho, is_adaptive=config.sam_adaptive):
            _backward(state, images, targets, image_size)
    if config.grad_clip_norm:
        clip_grad_norm_(state.model.parameters(), config.grad_clip_norm)
    if images.device.type == "cpu":  # a GPU would have to wait: there each save and epoch checks
        _refuse_non_finite(state, loss)
    for optimizer in state.optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss, logits


def _refuse_non_finite(state: TrainState, loss: Tensor) -> None:
    """Stop all processes before they take a step that would poison the weights of one.

    Raises:
        NonFiniteError: for a loss, a gradient or a statistic of a norm that is NaN or infinite.
    """
    gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
    is_finite = bool(loss.isfinite() & all_finite([*gradients, *state.model.buffers()]))
    if highest_of_all_processes(int(not is_finite)):
        what = "a gradient or a norm is not finite"
        raise non_finite(what if loss.isfinite() else f"the loss is {loss.item()}", state.step)


def _backward(
    state: TrainState, images: Tensor, targets: Tensor, image_size: int
) -> tuple[Tensor, Tensor]:
    """Add the gradients of a batch to those of the weights; return loss and logits, detached.

    On a GPU this is captured once for each size of images: a number that changes with the step has
    to be a tensor, filled in before the replay as `set_lr` does.

    Labels are smoothed as by Szegedy et al. 2016, https://arxiv.org/abs/1512.00567.
    """
    config = state.config
    with state.runtime.autocast():
        logits = state.forward(state.preprocess(images, image_size)).float()
        loss = F.cross_entropy(logits, targets, label_smoothing=config.label_smoothing)
        if state.teacher:
            share = config.distillation_weight
            loss = (1 - share) * loss + share * state.teacher.loss(images, logits, targets)
    loss.backward()
    return loss.detach(), logits.detach()


class StepGraph:
    """`update` at one size of images, captured: the host launches one graph, not each kernel.

    https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """

    def __init__(self, state: TrainState, images: Tensor, targets: Tensor, image_size: int) -> None:
        self.images, self.targets = images.clone(), targets.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries choose their kernels, buffers come to be
            for _ in range(3):
                update(state, self.images, self.targets, image_size)
        torch.cuda.current_stream().wait_stream(stream)
        gc.collect()  # what is freed during a capture would break it
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss, self.logits = update(state, self.images, self.targets, image_size)

    def replay(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Do what `update` does; the result is overwritten by the next replay."""
        self.images.copy_(images)
        self.targets.copy_(targets)
        self.graph.replay()
        return self.loss, self.logits


def warm_up(state: TrainState, images: Tensor, targets: Tensor) -> str:
    """Compile and capture for the sizes of images to come before the clock of the run starts.

    Takes no step and leaves no trace in `state` but `graphs`, `warmup_seconds` and, in the notes of
    its runtime, what could not be done. Returns what was done.
    """
    started = time.perf_counter()
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    state.model.train()
    note = ""
    is_capturable = state.runtime.device.type == "cuda" and world_size() == 1
    sizes = state.config.image_sizes
    current = image_size_at(state.step, state.config, steps_per_epoch=state.steps_per_epoch)
    for image_size in sizes[sizes.index(current) :]:
        update(state, images, targets, image_size)
        if is_capturable and not note:
            try:
                state.graphs[image_size] = StepGraph(state, images, targets, image_size)
            except RuntimeError as error:
                _leave_capture()
                note = f"The step could not be captured in a CUDA graph ({in_short(error)})."
                notes = (*state.runtime.notes, note)  # which the record of the run repeats
                state.runtime = dataclasses.replace(state.runtime, notes=notes)
    for optimizer in state.optimizers:  # of a step that could not be captured
        optimizer.zero_grad(set_to_none=True)
    if state.graphs:  # the first replay of all, and what stands beside it, are slow too
        train_step(state, images, targets)
        state.step -= 1
    state.load_tensors(before)
    seconds = time.perf_counter() - started
    state.history.warmup_seconds += seconds
    return f"Warm-up {seconds:.1f} s. {note}".rstrip()


def _leave_capture() -> None:
    """Bring back what a capture that failed has left behind: its stream and its draws."""
    torch.cuda.set_stream(torch.cuda.default_stream())
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    generator.graphsafe_set_state(generator.clone_state())


def set_lr(group: dict[str, object], lr: float) -> None:
    """Set the rate in place where it is a tensor, which a captured graph reads."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr
