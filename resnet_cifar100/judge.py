"""What a network says of a picture: calibrated probabilities, and how strange it looks to it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cifar100.bundle import Bundle


class Judge(nn.Module):
    """All that is asked of a picture: uint8 images (N,3,H,W) -> probs (N,K), strangeness (N,).

    Strangeness is an out-of-distribution score: the cosine distance, 0 to 2, from the features to
    the mean of the nearest class; 0 where no means are known. After Sun et al. 2022
    (https://arxiv.org/abs/2204.06507), who compare with single training images; docs/web.md has
    what it finds here, docs/log.md what was tried beside it.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.preprocess, self.model = bundle.preprocess, bundle.model
        self.temperature = bundle.calibration.temperature
        self.class_means = bundle.calibration.class_means

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return calibrated probabilities and strangeness."""
        features = self.model.forward_features(self.preprocess(images))
        probs = (self.model.forward_head(features) / self.temperature).softmax(dim=1)
        if self.class_means is None:
            return probs, torch.zeros_like(probs[:, 0])
        return probs, strangeness(features, self.class_means)


def strangeness(features: Tensor, class_means: Tensor) -> Tensor:
    """Return the cosine distance (N,) of features (N,D) to the nearest of class_means (K,D)."""
    return 1 - (F.normalize(features, dim=1) @ class_means.T).amax(dim=1)
