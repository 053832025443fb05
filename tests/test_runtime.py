import dataclasses
import json

import pytest
import torch

from resnet_cifar100.config import Config
from resnet_cifar100.errors import ConfigError
from resnet_cifar100.runtime import choose_device, create_runtime, environment

CPU = Config(device="cpu")


def test_a_machine_without_a_compiler_trains_anyway_and_is_told_so(monkeypatch):
    def no_compiler(_function):
        raise RuntimeError("no C++ compiler found\nand a long trace")

    monkeypatch.setattr(torch, "compile", no_compiler)
    runtime = create_runtime(dataclasses.replace(CPU, compile=True))
    assert not runtime.is_compiled
    (note,) = [note for note in runtime.notes if "compile" in note]
    assert "no C++ compiler found" in note
    assert "trace" not in note
    model = torch.nn.Identity()
    assert runtime.compile(model) is model


def test_a_cpu_trains_in_fp32_unless_told_otherwise():
    assert create_runtime(CPU).autocast_dtype == torch.float32
    runtime = create_runtime(dataclasses.replace(CPU, precision="bf16"))
    with runtime.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ConfigError, match="--device"):
        choose_device(name)


def test_the_same_seed_draws_the_same():
    create_runtime(CPU)
    first = torch.rand(3)
    create_runtime(CPU)
    assert torch.equal(torch.rand(3), first)


def test_the_stamp_of_the_environment_names_no_folder(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/home/somebody/project/train.py", "--lr", "0.1"])
    stamp = environment()
    assert stamp["command"] == "python train.py --lr 0.1"
    assert "/" not in json.dumps(stamp).replace("n/a", "")
    assert stamp["torch"] == str(torch.__version__)
