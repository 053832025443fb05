"""Published networks, loaded from the Hugging Face Hub or from a folder that `push` wrote."""

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from torch import Tensor, nn

from resnet_cifar100.bundle import Bundle, describe, load_bundle, to_safetensors
from resnet_cifar100.storage import replace_file


class Classifier(nn.Module, PyTorchModelHubMixin):
    """A trained network with its preprocessing: uint8 images (N,3,H,W) -> logits (N,K), float32.

    `Classifier.from_pretrained("USER/NAME")` gives the network that was pushed, in evaluation mode,
    and `names` the K classes. A file that lacks a tensor, has one too many, or does not match its
    SHA-256 is a CheckpointError: this is always strict, which the Hub's own loader is not.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.bundle = bundle
        self.model, self.preprocess = bundle.model, bundle.preprocess
        self.names = bundle.fine_names
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N,K) of uint8 images (N,3,H,W), 32x32 being the size it was made for."""
        logits: Tensor = self.model(self.preprocess(images))
        return logits

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        map_location: str = "cpu",
        strict: bool = True,
        **download: Any,  # noqa: ANN401
    ) -> "Classifier":
        """Load the weights of a folder or of a repository; called by `from_pretrained`.

        The mixin passes `strict`, which changes nothing: loading is always strict.
        """
        path = Path(model_id, SAFETENSORS_SINGLE_FILE)
        if not Path(model_id).is_dir():
            path = Path(hf_hub_download(model_id, SAFETENSORS_SINGLE_FILE, **download))
        return cls(load_bundle(path)).to(map_location)

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write weights and description; called by `save_pretrained`."""
        replace_file(
            save_directory / SAFETENSORS_SINGLE_FILE, to_safetensors(self.bundle, torch.float32)
        )
        description = json.dumps(describe(self.bundle), indent=2) + "\n"
        replace_file(save_directory / CONFIG_NAME, description)
