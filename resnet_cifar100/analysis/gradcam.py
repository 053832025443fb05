"""Where in a picture a network sees a class.

Grad-CAM, Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from resnet_cifar100.bundle import Bundle

LEAST_SIDE = (
    6  # of the map that is looked at, in pixels; the last maps, 3x3 or 4x4, show too little
)


def grad_cam(bundle: Bundle, images: Tensor, class_indices: Tensor) -> Tensor:
    """Return heat maps (N,H,W) in 0..1 of uint8 images (N,3,H,W) for one class each, (N,).

    The output of the last stage with maps of `LEAST_SIDE` pixels or more is weighted, channel by
    channel, with the mean gradient of the class's logit; what speaks against the class counts as 0.
    Not for two threads at a time with the same network.
    """
    maps: list[Tensor] = []

    def keep(_module: object, _inputs: object, output: Tensor) -> None:
        maps.append(output)

    stages = bundle.model.get_submodule("stages").children()
    hooks = [stage.register_forward_hook(keep) for stage in stages]
    try:
        with torch.enable_grad():
            inputs = bundle.preprocess(images).requires_grad_()
            logits = bundle.model(inputs)
            features = [one for one in maps if one.shape[-1] >= LEAST_SIDE][-1]
            of_class = logits.gather(1, class_indices[:, None]).sum()
            (gradient,) = torch.autograd.grad(of_class, features)
    finally:
        for hook in hooks:
            hook.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)  # (N,D,1,1)
    heat = F.relu((weights * features.detach()).sum(dim=1, keepdim=True))
    heat = F.interpolate(heat, size=images.shape[-2:], mode="bilinear")[:, 0]
    return heat / heat.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
