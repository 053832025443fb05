"""Checkpoints made to harm whoever opens them: by running code, by taking all memory, by lying."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from resnet_cifar100.bundle import CLASS_MEANS, Bundle, _digest, _weights, describe

Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], object]


class Runs:
    """Pickles to a call of `function`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def shell(canary: Path) -> Runs:
    return Runs(os.system, f"touch {canary}")


def evaluated(canary: Path) -> Runs:
    return Runs(eval, f"open({str(canary)!r}, 'w').close()")


def nested(canary: Path) -> Runs:
    """Hides the call in bytes that an admitted function of torch once unpickled without a look."""
    return Runs(torch.storage._load_from_bytes, saved({"state_dict": shell(canary)}))


def saved(content: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def pickles(canary: Path) -> dict[str, bytes]:
    """Return files that run code where they are unpickled without care."""
    plain = {"state_dict": {"stem.weight": torch.zeros(3)}, "format": 1, "sha256": ""}
    return {
        "os.system": saved({**plain, "extra": shell(canary)}),
        "eval": saved({**plain, "extra": evaluated(canary)}),
        "_load_from_bytes": saved({**plain, "extra": nested(canary)}),
        "the format before zip": saved(
            {**plain, "extra": shell(canary)}, _use_new_zipfile_serialization=False
        ),
        "pickle protocol 0": pickle.dumps({"state_dict": evaluated(canary)}, protocol=0),
        "a pickle after which a zip file follows": pickle.dumps(shell(canary)) + saved(plain),
    }


def zip_of(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression, compresslevel=1) as archive:
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def bombs(megabytes: int = 400) -> dict[str, bytes]:
    """Return small files that open to much, and one that is long to read."""
    small = saved({"state_dict": {"a": torch.zeros(1000)}})
    with zipfile.ZipFile(io.BytesIO(small)) as archive:
        entries = {info.filename.partition("/")[2]: archive.read(info) for info in archive.filelist}
    size = megabytes << 20
    large = entries["data.pkl"].replace(b"M\xe8\x03", b"J" + struct.pack("<i", size // 4))
    packed = {**entries, "data.pkl": large, "data/0": bytes(size)}
    spread = {"state_dict": {"a": torch.zeros(1).expand(size // 4)}, "format": 1, "sha256": ""}
    same = torch.zeros(100_000)
    shared = {str(number): same.view(-1) for number in range(megabytes * 3)}
    return {
        "a zip bomb": zip_of(packed, zipfile.ZIP_DEFLATED),
        "one value as a large tensor": saved(spread),
        "one tensor under many names": saved({**spread, "state_dict": shared}),
        "a pickle of 8 MB": zip_of({**entries, "data.pkl": b"\x80\x02" + b"N0" * (4 << 20)}),
        "a dictionary in itself": circular(),
    }


def circular() -> bytes:
    content: dict[str, Any] = {"state_dict": {}, "format": 1, "sha256": ""}
    content["self"] = content
    return saved(content)


def safetensors_of(header: dict[str, Any] | bytes, values: bytes = b"", size: int = 0) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", size or len(text)) + text + values


def layouts() -> dict[str, bytes]:
    """Return .safetensors files that do not say truly where their tensors lie."""

    def two(first: list[int], second: list[int], values: int = 16) -> bytes:
        facts = {"dtype": "F32", "shape": [2]}
        header = {"a": {**facts, "data_offsets": first}, "b": {**facts, "data_offsets": second}}
        return safetensors_of(header, bytes(values))

    huge = {"a": {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 8]}}
    nest = {"__metadata__": {"description": "[" * 100_000, "sha256": ""}}
    long = b'{"__metadata__":{"a":"' + b"a" * 99_999_900 + b'"}}'
    return {
        "a header of 100 MB": safetensors_of(long),
        "a header longer than the file": safetensors_of(b"{}", size=1 << 62),
        "tensors that overlap": two([0, 8], [4, 12]),
        "a hole between tensors": two([0, 8], [12, 20], values=20),
        "a negative offset": two([-8, 0], [0, 8]),
        "an offset beyond the file": two([0, 8], [8, 16], values=8),
        "offsets the wrong way round": two([8, 0], [8, 16]),
        "a shape that overflows": safetensors_of(huge, bytes(8)),
        "a nested description": safetensors_of(nest),
        "a list for a header": safetensors_of(b"[1]"),
        "torch's own format": saved({"a": torch.zeros(3)}),
    }


def _model(**settings: object) -> Change:
    return lambda description, _weights: description["model"].update(settings)


def _calibration(**parts: object) -> Change:
    return lambda description, _weights: description["calibration"].update(parts)


def _means(change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """Make the means of the classes from the last layer, (classes, features) as they are."""
    return lambda _, weights: weights.update({CLASS_MEANS: change(weights["head.weight"])})


def _head(value: float) -> Change:
    return lambda _description, weights: weights["head.bias"].fill_(value)


LIES: dict[str, Change] = {
    "weights that are NaN": _head(float("nan")),
    "weights that are infinite": _head(float("inf")),
    "a tensor too few": lambda _description, weights: weights.pop("head.bias"),
    "a tensor too many": lambda _description, weights: weights.update(more=torch.zeros(1)),
    "a tensor of another shape": lambda _description, weights: weights.update(
        {"head.bias": torch.zeros(99)}
    ),
    "another network": _model(name="resnet20"),
    "an unknown network": _model(name="../../etc/passwd"),
    "a large network": _model(name="wrn_28_10", width=8.0),
    "width 8": _model(width=8.0),
    "width 1e9": _model(width=1e9),
    "width inf": _model(width=float("inf")),
    "width nan": _model(width=float("nan")),
    "width in words": _model(width="wide"),
    "image size -1": _model(image_size=-1),
    "image size 1e9": _model(image_size=10**9),
    "1e9 classes": _model(num_classes=10**9),
    "-1 classes": _model(num_classes=-1),
    "1e30 classes": _model(num_classes=10**30),
    "dropout 2": _model(dropout=2.0),
    "a setting too many": _model(code="x"),
    "a mean in words": lambda description, _weights: description.update(mean="grey"),
    "deviations of 0": lambda description, _weights: description.update(std=[0.0] * 3),
    "deviations that are NaN": lambda description, _weights: description.update(
        std=[float("nan")] * 3
    ),
    "weights whose sums overflow": lambda _description, weights: weights["head.weight"].fill_(1e38),
    "fractions for superclasses": lambda description, _weights: description.update(
        fine_to_coarse=[0.0] * 100
    ),
    "metrics that are one number": lambda description, _weights: description["provenance"].update(
        metrics=5
    ),
    "metrics that are NaN": lambda description, _weights: description["provenance"].update(
        metrics={"chosen_by": "last epoch", "test/top1": float("nan")}
    ),
    "seconds in words": lambda description, _weights: description["provenance"].update(
        metrics={"train_seconds": "x"}
    ),
    "numbers for names": lambda description, _weights: description.update(
        fine_names=list(range(100))
    ),
    "temperature 0": _calibration(temperature=0.0),
    "temperature nan": _calibration(temperature=float("nan")),
    "temperature in words": _calibration(temperature="warm"),
    "strangeness below 0": _calibration(most_strangeness=-1.0),
    "strangeness nan": _calibration(most_strangeness=float("nan")),
    "means of other features": _means(lambda head: head[:, :3].clone()),
    "means that are NaN": _means(lambda head: head * torch.nan),
    "no provenance": lambda description, _weights: description.update(provenance=[]),
}


def lies(bundle: Bundle, suffixes: Iterable[str]) -> dict[str, bytes]:
    """Return files of these kinds with the right checksum over what is wrong."""
    files = {}
    for name, change in LIES.items():
        weights = {key: tensor.clone() for key, tensor in _weights(bundle).items()}
        description = json.loads(json.dumps(describe(bundle)))
        change(description, weights)
        digest = _digest(weights, description)
        metadata = {"description": json.dumps(description, sort_keys=True), "sha256": digest}
        contents = {
            ".pth": saved({**description, "state_dict": weights, "sha256": digest}),
            ".safetensors": safetensors.torch.save(weights, metadata),
        }
        files |= {f"{name}{suffix}": contents[suffix] for suffix in suffixes}
    return files
