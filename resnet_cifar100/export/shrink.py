"""ONNX files small enough to be sent with a page, which answer almost as the whole ones do."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from resnet_cifar100.storage import replace_file

_LEAST = 1024  # values: smaller tensors stay as they are


def save_small(source: Path, path: Path, most_bytes: int) -> None:
    """Write the ONNX file `source` to `path` with its weights in fp16, computing in fp32 as before.

    As long as they take more than `most_bytes`, the largest that is left goes into int8, a scale
    for each channel: rounding a few large filters changes fewer answers than rounding all of them.

    Raises:
        CheckpointError: where it cannot be written.
    """
    model = onnx.load(source)
    graph = model.graph
    weights = [
        one
        for one in graph.initializer
        if one.data_type == TensorProto.FLOAT and np.prod(one.dims) >= _LEAST
    ]
    weights.sort(key=lambda one: -np.prod(one.dims))
    total = sum(2 * int(np.prod(one.dims)) for one in weights)
    for weight in weights:
        graph.initializer.remove(weight)
        values = numpy_helper.to_array(weight)
        if total > most_bytes and values.ndim > 1:
            total -= values.size
            node, stored = _in_int8(weight.name, values)
        else:
            node, stored = _in_fp16(weight.name, values)
        graph.node.insert(0, node)
        graph.initializer.extend(stored)
    replace_file(path, model.SerializeToString())


def _in_fp16(name: str, values: np.ndarray) -> tuple[onnx.NodeProto, list[TensorProto]]:
    stored = numpy_helper.from_array(values.astype(np.float16), f"{name}_fp16")
    return helper.make_node("Cast", [stored.name], [name], to=TensorProto.FLOAT), [stored]


def _in_int8(name: str, values: np.ndarray) -> tuple[onnx.NodeProto, list[TensorProto]]:
    """Return the node that gives `values` (C,...) back, and its inputs: integers, scales (C,)."""
    scales = np.abs(values).reshape(len(values), -1).max(axis=1).clip(min=1e-30) / 127
    integers = np.rint(values / scales.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8)
    stored = [
        numpy_helper.from_array(integers, f"{name}_int8"),
        numpy_helper.from_array(scales.astype(np.float32), f"{name}_scales"),
    ]
    names = [one.name for one in stored]
    return helper.make_node("DequantizeLinear", names, [name], axis=0), stored
