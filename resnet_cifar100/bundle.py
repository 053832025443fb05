"""best_model.pth, the one self-describing artefact: weights and all it takes to use and judge them.

Tensors and plain types only, so that it loads with `weights_only=True`; a SHA-256 over the whole
content stands inside, because torch's own reader does not notice a flipped bit. The same content
also fits a .safetensors file of half the size, in fp16, for shipping.
"""

import dataclasses
import hashlib
import io
import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from resnet_cifar100.config import Config, ModelConfig
from resnet_cifar100.constants import IMAGE_SIZE
from resnet_cifar100.data.transforms import Preprocess
from resnet_cifar100.description import calibration_of, check_description
from resnet_cifar100.errors import CheckpointError
from resnet_cifar100.models.factory import Model, create_model
from resnet_cifar100.storage import check_header, check_zip, replace_with_checksum

FORMAT = 1
_BLACK = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
CLASS_MEANS = "calibration.class_means"  # the one tensor in a file that is not the network's


@dataclass(frozen=True)
class Calibration:
    """How far a network's answers can be relied on, fitted on images held out from training.

    Logits are divided by `temperature` before the softmax (Guo et al. 2017,
    https://arxiv.org/abs/1706.04599). `class_means` (K,D), of unit length, are where the features
    of each class point; a picture that is stranger than `most_strangeness` (`Judge`) counts as
    unlike the data. None sets no limit. `source` says in a few words what this was fitted on.
    """

    temperature: float = 1.0
    most_strangeness: float | None = None
    source: str = "not calibrated"
    class_means: Tensor | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Bundle:
    """A network ready to predict, with its names and where it comes from.

    The keys of `provenance`: dataset (title; SYNTHETIC for drawn data), metrics, config (all
    settings), environment.
    """

    model_config: ModelConfig
    model: Model
    preprocess: Preprocess
    fine_names: tuple[str, ...]
    coarse_names: tuple[str, ...]
    fine_to_coarse: tuple[int, ...]
    provenance: dict[str, Any]
    calibration: Calibration = Calibration()

    @property
    def config(self) -> Config:
        """The settings of the run that trained it."""
        return Config.from_json(self.provenance["config"])

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (N,K), float32, of uint8 images (N,3,H,W) of any size."""
        return self.model(self.preprocess(images))  # type: ignore[no-any-return]

    def to(self, device: torch.device) -> "Bundle":
        """Move the network and its preprocessing to `device`, in place; not the calibration."""
        self.model.to(device)
        self.preprocess.to(device)
        return self


def save_bundle(bundle: Bundle, *paths: Path) -> None:
    """Write the same file to each of `paths` in one step each, and NAME.sha256 beside it.

    Raises:
        CheckpointError: where one cannot be written; what stood there is untouched.
    """
    weights, description = _weights(bundle), describe(bundle)
    buffer = io.BytesIO()
    digest = _digest(weights, description)
    torch.save({**description, "state_dict": weights, "sha256": digest}, buffer)
    replace_with_checksum(buffer.getvalue(), *paths)


def save_safetensors(bundle: Bundle, path: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write `bundle` as .safetensors, its weights in `dtype`, and NAME.sha256 beside it.

    Raises:
        CheckpointError: where it cannot be written; what stood there is untouched.
    """
    replace_with_checksum(to_safetensors(bundle, dtype), path)


def dtype_of(path: Path) -> torch.dtype:
    """Return the type of the weights in a .safetensors file."""
    with safetensors.safe_open(path, "pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    return torch.float32 if "F32" in kinds else torch.float16


def to_safetensors(bundle: Bundle, dtype: torch.dtype) -> bytes:
    """Return `bundle` as the content of a .safetensors file, its weights in `dtype`."""
    weights = {
        name: t.to(dtype) if t.is_floating_point() else t for name, t in _weights(bundle).items()
    }
    description = describe(bundle)
    metadata = {
        "description": json.dumps(description, sort_keys=True),
        "sha256": _digest(weights, description),
    }
    return safetensors.torch.save(weights, metadata)


def load_bundle(path: Path) -> Bundle:
    """Read a .pth or .safetensors file of this project, onto the CPU, for evaluation.

    Raises:
        CheckpointError: for a missing, foreign or damaged file.
    """
    content = _read(path)
    try:
        weights, digest = content.pop("state_dict"), content.pop("sha256")
        if content["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {content['format']}, this version reads {FORMAT}"
            )
        if sum(t.numel() * t.element_size() for t in weights.values()) > path.stat().st_size:
            raise CheckpointError(f"{path} would unpack to more than its own size")
        if digest != _digest(weights, content):
            raise CheckpointError(f"{path} is damaged: its content does not match its SHA-256")
        check_description(content)
        class_means = weights.pop(CLASS_MEANS, None)
        model_config = ModelConfig(**content["model"])
        fine, coarse, groups = (
            tuple(content[name]) for name in ("fine_names", "coarse_names", "fine_to_coarse")
        )
        if len(fine) != model_config.num_classes:
            raise ValueError(f"it names {len(fine)} of {model_config.num_classes} classes")
        model = _network(model_config, weights)
        calibration = Calibration(
            **calibration_of(content),
            class_means=None if class_means is None else class_means.float(),
        )
        if class_means is not None and not _are_means(class_means, model):
            raise ValueError("its calibration is not one that `calibrate` writes")
        bundle = Bundle(
            model_config=model_config,
            model=model,
            preprocess=Preprocess(model_config.image_size, content["mean"], content["std"]),
            fine_names=fine,
            coarse_names=coarse,
            fine_to_coarse=groups,
            provenance=content["provenance"],
            calibration=calibration,
        )
        if not bool(bundle.logits(_BLACK).isfinite().all()):
            raise ValueError("its answers are not finite numbers")
        return bundle
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"{path} is not a best_model.pth of this project ({error})"
        ) from error


def describe(bundle: Bundle) -> dict[str, Any]:
    """Return what is to be known of a bundle besides its weights, in plain types."""
    return {
        "format": FORMAT,
        "model": dataclasses.asdict(bundle.model_config),
        "mean": bundle.preprocess.mean.flatten().tolist(),
        "std": bundle.preprocess.std.flatten().tolist(),
        "fine_names": list(bundle.fine_names),
        "coarse_names": list(bundle.coarse_names),
        "fine_to_coarse": list(bundle.fine_to_coarse),
        "provenance": bundle.provenance,
        "calibration": {
            "temperature": bundle.calibration.temperature,
            "most_strangeness": bundle.calibration.most_strangeness,
            "source": bundle.calibration.source,
        },
    }


def without_folders(bundle: Bundle) -> Bundle:
    """Return a bundle that says nothing about the folders of the machine that made it."""
    config = bundle.config.without_folders()
    return dataclasses.replace(bundle, provenance={**bundle.provenance, "config": config.to_json()})


def _network(config: ModelConfig, weights: dict[str, Tensor]) -> Model:
    """Return the network with these weights, for evaluation.

    Raises:
        ValueError: for settings outside limits, for weights that do not fit or are not finite.
    """
    settings = dataclasses.asdict(config)
    del settings["num_classes"]
    Config(model=settings.pop("name"), **settings)
    if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
        raise ValueError("a weight is not a finite number")
    with torch.device("meta"):  # shapes without values: a network of any size takes no memory
        shapes = {name: one.shape for name, one in create_model(config).state_dict().items()}
    if shapes != {name: tensor.shape for name, tensor in weights.items()}:
        raise ValueError(f"its weights do not fit {config.name}")
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn for nothing
        model = create_model(config).eval()
    model.load_state_dict(weights)
    return model


def _are_means(class_means: Tensor, model: Model) -> bool:
    """Whether a tensor can be the means of the classes in the features of `model`."""
    shape = model.head.weight.shape
    return class_means.shape == shape and bool(class_means.isfinite().all())


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".onnx":
        raise CheckpointError(
            f"{path} is an ONNX file, which has no weights to go on with: name the best_model.pth "
            "or .safetensors file that it was made from"
        )
    read = _read_safetensors if path.suffix == ".safetensors" else _read_pth
    try:
        return read(path)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} does not exist; `python train.py` makes one, or name another file"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged stream makes a reader raise nearly anything
        raise CheckpointError(
            f"{path} is damaged, or not a file of plain tensors by this project"
        ) from error


def _read_pth(path: Path) -> dict[str, Any]:
    check_zip(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a foreign file gets our sentence, not torch's advice
        return dict(torch.load(path, map_location="cpu", weights_only=True))


def _read_safetensors(path: Path) -> dict[str, Any]:
    with path.open("rb") as start:
        check_header(start.read(8))
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    description = dict(json.loads(metadata["description"]))
    return {**description, "state_dict": weights, "sha256": metadata["sha256"]}


def _weights(bundle: Bundle) -> dict[str, Tensor]:
    tensors = dict(bundle.model.state_dict())
    if bundle.calibration.class_means is not None:
        tensors[CLASS_MEANS] = bundle.calibration.class_means
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _digest(weights: dict[str, Tensor], description: dict[str, Any]) -> str:
    """Return the SHA-256 over the description and every tensor: name, type, shape, bytes."""
    sha256 = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha256.update(tensor.contiguous().numpy().tobytes())
    return sha256.hexdigest()
