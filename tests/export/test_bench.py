import json

import pytest

from resnet_cifar100.cli import main
from resnet_cifar100.runtime import torch as runtime_torch
from tests.analysis.test_analyze import train


def test_every_form_is_measured_in_one_run(tiny_data_dir, tmp_path, capsys, monkeypatch):
    path = train(tmp_path, tiny_data_dir, epochs=1) / "best_model.pth"
    words = ["bench", "inference", "--checkpoint-path", str(path), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    page = (tmp_path / "out/inference.md").read_text()
    assert page in shown
    assert "SYNTHETIC" in page
    result = json.loads((tmp_path / "out/inference.json").read_text())
    names = ["PyTorch, eager", "model.onnx", "model-int8.onnx"]
    if "Not compiled" not in shown:
        names.insert(1, "PyTorch, compiled")
    assert list(result["forms"]) == names
    assert set(result["bytes"]) == {"model.onnx", "model-int8.onnx"}
    assert result["forms"]["PyTorch, eager"]["same_top1"] == result["images"] == 200
    assert result["environment"]["command"]


def test_without_a_compiler_the_rest_is_measured(tiny_data_dir, tmp_path, capsys, monkeypatch):
    def fail(*_arguments, **_keywords):
        raise RuntimeError("no compiler")

    path = train(tmp_path, tiny_data_dir, epochs=1) / "best_model.pth"
    monkeypatch.setattr(runtime_torch, "compile", fail)
    assert main(["bench", "inference", "--checkpoint-path", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "torch.compile does not work here (no compiler)" in shown
    assert "PyTorch, compiled" not in shown


@pytest.mark.parametrize("word", ["training", "--device"])
def test_what_it_cannot_measure_is_refused(word):
    assert main(["bench", word]) == 3
