"""Where in a picture a network sees a class.

Grad-CAM, Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from resnet_cifar100.bundle import Bundle
from resnet_cifar100.models.resnet import ResNet


def grad_cam(bundle: Bundle, images: Tensor, class_indices: Tensor) -> Tensor:
    """Return heat maps (N,H,W) in 0..1 of uint8 images (N,3,H,W) for one class each, (N,).

    The last maps before pooling are weighted, channel by channel, with the mean gradient of the
    class's logit; what speaks against the class counts as 0. They are coarse, 3x3 or 4x4 pixels,
    but on earlier and finer ones nothing is left of many pictures. Not for two threads at a time
    with the same network.
    """
    maps: list[Tensor] = []

    def keep(_module: object, _inputs: object, output: Tensor) -> None:
        maps.append(output)

    model = bundle.model
    last = model.activation if isinstance(model, ResNet) else model.stages
    hook = last.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = model(bundle.preprocess(images).requires_grad_())
            of_class = logits.gather(1, class_indices[:, None]).sum()
            (gradient,) = torch.autograd.grad(of_class, maps[0])
    finally:
        hook.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)  # (N,D,1,1)
    heat = F.relu((weights * maps[0].detach()).sum(dim=1, keepdim=True))
    heat = F.interpolate(heat, size=images.shape[-2:], mode="bilinear")[:, 0]
    return heat / heat.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
