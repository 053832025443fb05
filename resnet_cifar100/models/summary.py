"""What a network is made of: its stages, parameters and multiply-adds."""

import dataclasses
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from resnet_cifar100.config import Config, ModelConfig
from resnet_cifar100.models.factory import create_model


@dataclass(frozen=True)
class Part:
    """One row of the table: `shape` is the output (C,H,W) or (K,); counts are for one image."""

    name: str
    layers: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Summary:
    """The table of a network and its totals; convolutions and fully connected layers count."""

    parts: tuple[Part, ...]
    parameters: int
    multiply_adds: int


@cache  # the log of a run asks each epoch
def summarize(config: ModelConfig) -> Summary:
    """Send one image through the network and count, on the meta device: shapes without values."""
    with torch.device("meta"):
        model = create_model(config).eval()
        image = torch.empty(1, 3, config.image_size, config.image_size)
    shapes: dict[nn.Module, tuple[int, ...]] = {}
    counts: dict[nn.Module, int] = {}

    def record(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shapes[module] = tuple(output.shape[1:])
        if isinstance(module, nn.Conv2d | nn.Linear):
            counts[module] = module.weight[0].numel() * output[0].numel()

    for module in model.modules():
        module.register_forward_hook(record)
    with torch.inference_mode():
        model(image)
    parts = tuple(
        Part(
            name=name,
            layers=layers,
            shape=shapes[module],
            parameters=count_parameters(module),
            multiply_adds=sum(counts.get(child, 0) for child in module.modules()),
        )
        for name, layers, module in _parts_of(model)
    )
    return Summary(parts, count_parameters(model), sum(counts.values()))


def check_image_sizes(config: Config) -> None:
    """Refuse a run that shows its network images too small for it.

    Raises:
        ConfigError: naming what is too small.
    """
    for size in config.image_sizes:
        summarize(dataclasses.replace(config.model_config, image_size=size))


def count_parameters(module: nn.Module) -> int:
    """Return the number of values in weights and biases, frozen ones among them."""
    return sum(parameter.numel() for parameter in module.parameters())


def _parts_of(model: nn.Module) -> list[tuple[str, str, nn.Module]]:
    """Return (name, layers in words, module) of each part that holds parameters, stage by stage."""
    rows: list[tuple[str, str, nn.Module]] = []
    for name, child in model.named_children():
        if name == "stages" and isinstance(child, nn.Sequential):
            for index, stage in enumerate(child, start=1):
                layers = _kind(stage)
                if isinstance(stage, nn.Sequential):  # of blocks that are alike
                    layers = f"{len(stage)} x {_kind(stage[0])}"
                rows.append((f"stage {index}", layers, stage))
        elif count_parameters(child):
            rows.append((name, _kind(child), child))
    return rows


def _kind(module: nn.Module) -> str:
    return type(module).__name__
