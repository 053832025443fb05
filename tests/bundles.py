"""Networks with all that a best_model.pth holds, which have learned nothing."""

from collections.abc import Mapping

import torch

from resnet_cifar100.bundle import Bundle, _digest, describe
from resnet_cifar100.config import Config
from resnet_cifar100.constants import FINE_TO_COARSE
from resnet_cifar100.data.transforms import Preprocess
from resnet_cifar100.models.factory import create_model
from tests.names import COARSE_NAMES, FINE_NAMES


def untrained(
    config: Config,
    *,
    seed: int = 0,
    title: str = "SYNTHETIC",
    metrics: Mapping[str, float] | None = None,
) -> Bundle:
    """Return what a run with these settings would leave after no step, on the data of `title`."""
    torch.manual_seed(seed)
    return Bundle(
        model_config=config.model_config,
        model=create_model(config.model_config).eval(),
        preprocess=Preprocess(config.image_size),
        fine_names=FINE_NAMES,
        coarse_names=COARSE_NAMES,
        fine_to_coarse=FINE_TO_COARSE,
        provenance={
            "dataset": title,
            "metrics": dict(metrics or {}),
            "config": config.to_json(),
            "environment": {},
        },
    )


def digest_of(bundle: Bundle) -> str:
    """Hash all that a file of it holds."""
    return _digest(bundle.model.state_dict(), describe(bundle))
