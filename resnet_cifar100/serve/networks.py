"""Files with weights as what a Predictor runs: PyTorch's (.pth, .safetensors) or ONNX.

torch and onnxruntime are each imported only for files that need them.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_cifar100.constants import IMAGE_SIZE
from resnet_cifar100.description import calibration_of, check_description
from resnet_cifar100.errors import CheckpointError
from resnet_cifar100.serve.predictor import Network, Scores

if TYPE_CHECKING:
    from resnet_cifar100.bundle import Bundle


def open_network(path: Path) -> Network:
    """Read a best_model.pth, a .safetensors or an .onnx file of this project.

    Raises:
        CheckpointError: for a missing, foreign or damaged file.
    """
    if path.suffix == ".onnx":
        return OnnxNetwork(path)
    from resnet_cifar100.bundle import load_bundle

    return TorchNetwork(load_bundle(path))


class TorchNetwork:
    """A bundle, in fp32."""

    def __init__(self, bundle: "Bundle") -> None:
        from resnet_cifar100.bundle import describe
        from resnet_cifar100.judge import Judge

        self.bundle = bundle
        self.description = describe(bundle)
        self._judge = Judge(bundle).eval()

    def score(self, images: np.ndarray) -> Scores:
        """Score uint8 images (N,3,32,32)."""
        import torch

        with torch.inference_mode():
            probs, strangeness = self._judge(torch.from_numpy(images))
        return Scores(probs.numpy(), strangeness.numpy())

    def heatmap(self, image: np.ndarray, class_index: int) -> np.ndarray:
        """Return where in a uint8 image (3,32,32) the network sees a class, (32,32) in 0..1."""
        import torch

        from resnet_cifar100.analysis.gradcam import grad_cam

        images = torch.from_numpy(np.ascontiguousarray(image))[None]
        heat: np.ndarray = grad_cam(self.bundle, images, torch.tensor([class_index]))[0].numpy()
        return heat


class OnnxNetwork:
    """What `export.onnx` writes, run by ONNX Runtime. It has no heat maps: it has no gradients."""

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime  # type: ignore[import-untyped]
        except ImportError as error:
            raise CheckpointError(f"{path} needs onnxruntime: pip install onnxruntime") from error
        try:
            self._session = onnxruntime.InferenceSession(
                path.read_bytes(), providers=["CPUExecutionProvider"]
            )
            metadata = self._session.get_modelmeta().custom_metadata_map
            self.description: dict[str, Any] = dict(json.loads(metadata["description"]))
            check_description(self.description)
            self.description["calibration"] = calibration_of(self.description)
            probs, _ = self.score(np.zeros((1, 3, IMAGE_SIZE, IMAGE_SIZE), np.uint8))
            if probs.shape != (1, len(self.description["fine_names"])):
                raise ValueError("it names other classes than it tells apart")
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error
        except Exception as error:  # the runtime's own kinds of error share no other base
            raise CheckpointError(f"{path} is damaged or not of this project") from error

    def score(self, images: np.ndarray) -> Scores:
        """Score uint8 images (N,3,32,32)."""
        probs, strangeness = self._session.run(["probs", "strangeness"], {"images": images})
        return Scores(probs, strangeness)

    def heatmap(self, image: np.ndarray, class_index: int) -> np.ndarray | None:
        """Return None."""
        return None
