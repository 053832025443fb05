"""One ONNX file with everything inside: preprocessing, network, calibrated probabilities, names."""

import json
import logging
import warnings
from pathlib import Path

import torch

from resnet_cifar100.bundle import Bundle, Judge, describe
from resnet_cifar100.constants import IMAGE_SIZE
from resnet_cifar100.storage import replace_file

OPSET = 20

# It warns of each function of torchvision that it does without.
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)


def save_onnx(bundle: Bundle, path: Path) -> None:
    """Write `bundle` as an ONNX file of one piece.

    Input `images`: uint8 (N,3,32,32), N free. Outputs `probs`: float32 (N,K), calibrated, and
    `strangeness`: float32 (N,). The metadata entry `description` is that of the bundle, in JSON.

    Raises:
        CheckpointError: where it cannot be written.
    """
    images = torch.zeros(2, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about its own code
        program = torch.onnx.export(
            Judge(bundle).eval(),
            (images,),
            input_names=["images"],
            output_names=["probs", "strangeness"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # only the exporter of torch's older versions returns nothing
    model = program.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = "description", json.dumps(describe(bundle), sort_keys=True)
    replace_file(path, model.SerializeToString())
