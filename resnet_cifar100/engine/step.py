"""One optimizer update."""

import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from resnet_cifar100.engine.optim import lr_at
from resnet_cifar100.engine.state import TrainState


def train_step(state: TrainState, images: Tensor, labels: Tensor) -> None:
    """Update the weights from uint8 images (N,3,H,W), labels (N,); do not wait for the device."""
    config = state.config
    for group in state.optimizer.param_groups:
        group["lr"] = lr_at(state.step, config, steps_per_epoch=state.steps_per_epoch)
    with state.runtime.autocast():
        logits = state.forward(state.preprocess(images))
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)
    loss.backward()
    if config.grad_clip_norm:
        clip_grad_norm_(state.model.parameters(), config.grad_clip_norm)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.ema:
        state.ema.update(state.model, state.step)
    state.losses.update(state.step % state.steps_per_epoch, loss, logits, labels)
    state.step += 1
