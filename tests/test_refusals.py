"""What people mistype is refused in a sentence that says what to do, before any work is done."""

import pytest
import torch

from resnet_cifar100 import cli
from tests.conftest import REPOSITORY

WEIGHTS = str(REPOSITORY / "weights" / "fast.safetensors")
RECORD = str(REPOSITORY / "records" / "2026-11-23_fast-seed0")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["app", "--port", "65536"], 3, "--port must be in 0 to 65535, got 65536"),
        (["app", "--port", "-1"], 3, "--port must be in 0 to 65535, got -1"),
        (["app", "--host", "127.0.0..1", "--checkpoint-path", WEIGHTS], 3, "cannot be served"),
        (["analyze", "model.onnx"], 4, "model.onnx is an ONNX file"),
        (["export", "onnx", "--checkpoint-path", "model.onnx"], 4, "model.onnx is an ONNX file"),
        (["calibrate", "--held-out", WEIGHTS], 3, "--held-out needs a run that held images out"),
        (
            ["predict", "https://example.com/a.png", "--checkpoint-path", WEIGHTS],
            6,
            "is an address",
        ),
        (["predict", ".", "", "--checkpoint-path", WEIGHTS], 6, "2 of 2 pictures refused"),
        *(
            (["record", RECORD, "--name", name], 3, f"joined by dashes, got {name!r}")
            for name in ("", "../x", "a/b", "my run", "x-")
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_it_is_refused(words, code, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    (tmp_path / "model.onnx").write_bytes(b"anything")
    assert cli.main(words) == code
    assert sentence in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("port", ["70000", "http", "9" * 5000])
def test_a_port_in_the_environment_that_is_none_is_refused(port, monkeypatch, capsys):
    monkeypatch.setenv("GRADIO_SERVER_PORT", port)
    assert cli.main(["app", "--checkpoint-path", WEIGHTS]) == 3
    assert "GRADIO_SERVER_PORT must be in 0 to 65535" in capsys.readouterr().err


SMOKE = ["--recipe", "smoke", "--dataset", "synthetic"]


def test_a_gpu_that_is_too_small_is_said_with_what_helps(
    tiny_data_dir, tmp_path, monkeypatch, capsys
):
    def runs_out(*_given):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("resnet_cifar100.engine.trainer.fit", runs_out)
    words = [*SMOKE, "--data-dir", str(tiny_data_dir), "--train-size", "0", "--val-size", "0"]
    words += ["--early-stopping-patience", "0", "--batch-size", "96"]
    assert cli.main(["train", *words]) == 3
    said = capsys.readouterr().err
    assert "the GPU ran out of memory: try a --batch-size smaller than 96" in said


def test_tensorboard_without_its_package_is_refused_before_anything_is_made(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert cli.main(["train", *SMOKE, "--tensorboard"]) == 3
    assert "--tensorboard needs the package: pip install tensorboard" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
