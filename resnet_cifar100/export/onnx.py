"""One ONNX file with everything inside: preprocessing, network, calibrated probabilities, names."""

import json
import logging
import warnings
from pathlib import Path

import onnx
import torch
from onnx.compose import merge_models
from onnx.parser import parse_model

from resnet_cifar100 import __version__
from resnet_cifar100.bundle import Bundle, describe
from resnet_cifar100.constants import IMAGE_SIZE
from resnet_cifar100.judge import Judge
from resnet_cifar100.storage import replace_file

OPSET = 20
# The centre square, for the network and to be shown; the settings are those of Pillow's BICUBIC.
_SQUARE_32 = f"""
<ir_version: 10, opset_import: ["": {OPSET}]>
square_32 (uint8[batch,3,height,width] images)
    => (uint8[batch,3,{IMAGE_SIZE},{IMAGE_SIZE}] square,
        uint8[batch,3,{IMAGE_SIZE},{IMAGE_SIZE}] pixels)
{{
    size = Shape <start = 2> (images)
    side = ReduceMin (size)
    two = Constant <value_int = 2> ()
    rest = Sub (size, side)
    first = Div (rest, two)
    end = Add (first, side)
    axes = Constant <value_ints = [2, 3]> ()
    whole = Slice (images, first, end, axes)
    others = Shape <end = 2> (images)
    last = Constant <value_ints = [{IMAGE_SIZE}, {IMAGE_SIZE}]> ()
    shape = Concat <axis = 0> (others, last)
    square = Resize <mode = "cubic", cubic_coeff_a = -0.5, antialias = 1, exclude_outside = 1>
        (whole, , , shape)
    pixels = Identity (square)
}}
"""

# It warns of each function of torchvision that it does without.
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)


def save_onnx(bundle: Bundle, path: Path) -> None:
    """Write `bundle` as an ONNX file of one piece.

    Input `images`: uint8 (N,3,H,W) of any size. Outputs `probs`: float32 (N,K), calibrated;
    `strangeness`: float32 (N,); `pixels`: uint8 (N,3,32,32), what the network saw: the centre
    square of each image, resized as `data.images.square_32` does it (one value in a thousand may
    be rounded the other way). The metadata entry `description` is that of the bundle, in JSON.

    Raises:
        CheckpointError: where it cannot be written.
    """
    pixels = torch.zeros(2, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about its own code
        program = torch.onnx.export(
            Judge(bundle).eval(),
            (pixels,),
            input_names=["pixels"],
            output_names=["probs", "strangeness"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # only the exporter of torch's older versions returns nothing
    network, door = program.model_proto, parse_model(_SQUARE_32)
    graph = network.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]  # where the code of torch and of this project lies, above all
    door.ir_version = network.ir_version
    model = merge_models(
        door,
        network,
        io_map=[("square", "pixels")],
        outputs=["probs", "strangeness", "pixels"],
        producer_name="resnet_cifar100",
        producer_version=__version__,
    )
    del model.opset_import[1:]  # the same set twice: once from each part
    onnx.helper.set_model_props(
        model, {"description": json.dumps(describe(bundle), sort_keys=True)}
    )
    replace_file(path, model.SerializeToString())
