import json

import pytest
import torch

from resnet_cifar100 import runtime
from resnet_cifar100.cli import main


def test_every_form_is_measured_in_one_run(checkpoint, tmp_path, capsys, monkeypatch):
    compiled = []
    monkeypatch.setattr(runtime, "compile_fault", lambda _: "")
    monkeypatch.setattr(torch, "compile", lambda model, **_: compiled.append(model) or model)
    words = ["bench", "inference", "--checkpoint-path", str(checkpoint)]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert len(compiled) == 1
    shown = capsys.readouterr().out
    page = (tmp_path / "out/inference.md").read_text()
    assert page in shown
    assert "SYNTHETIC" in page
    result = json.loads((tmp_path / "out/inference.json").read_text())
    names = ["PyTorch, eager", "PyTorch, compiled", "model.onnx", "model-int8.onnx"]
    assert list(result["forms"]) == names
    assert set(result["bytes"]) == {"model.onnx", "model-int8.onnx"}
    assert result["forms"]["PyTorch, eager"]["same_top1"] == result["images"] == 200
    assert result["environment"]["command"]


def test_without_a_compiler_the_rest_is_measured(checkpoint, capsys, monkeypatch):
    def fail(*_arguments, **_keywords):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", fail)
    assert main(["bench", "inference", "--checkpoint-path", str(checkpoint)]) == 0
    shown = capsys.readouterr().out
    assert "torch.compile does not work here (no compiler)" in shown
    assert "PyTorch, compiled" not in shown


@pytest.mark.parametrize("word", ["training", "--device"])
def test_what_it_cannot_measure_is_refused(word):
    assert main(["bench", word]) == 3
