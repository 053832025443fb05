import numpy as np
import onnx
import pytest
import torch

from resnet_cifar100.cli import main
from resnet_cifar100.config import SHIPPED_MODEL, Config
from resnet_cifar100.data.cifar100 import load_dataset
from resnet_cifar100.export.forms import compare_forms, eager, predict_all, run_onnx
from resnet_cifar100.export.quantize import normalize_before_pooling, save_int8
from resnet_cifar100.serve.networks import open_network
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def images(tiny_data_dir):
    return load_dataset(Config(dataset="synthetic", data_dir=tiny_data_dir)).train.images.numpy()


@pytest.fixture(scope="module")
def files(shipped_onnx, images, tmp_path_factory):
    small = tmp_path_factory.mktemp("exports") / "int8.onnx"
    save_int8(shipped_onnx, small, images[:200])
    return shipped_onnx, small


def test_the_file_is_a_third_of_the_size_and_still_says_what_it_is(files):
    whole, small = files
    assert small.stat().st_size < whole.stat().st_size / 3
    assert small.stat().st_size < 8_000_000
    onnx.checker.check_model(onnx.load(small))
    assert open_network(small).description == open_network(whole).description


def test_products_are_in_8_bits_for_each_channel(files):
    model = onnx.load(files[1])
    weights = {one.name: one for one in model.graph.initializer}
    filters = [one for one in weights.values() if len(one.dims) == 4 and one.dims[0] > 1]
    assert {one.data_type for one in filters} == {onnx.TensorProto.INT8}
    largest = max(np.abs(onnx.numpy_helper.to_array(one).astype(int)).max() for one in filters)
    assert 2 * 255 * largest < 2**15  # two products fit where a processor adds them in 16 bits
    scales = [one for name, one in weights.items() if name.endswith("_scale") and one.dims]
    assert max(one.dims[0] for one in scales) == 640


def test_from_the_first_to_the_last_convolution_nothing_leaves_8_bits(files):
    nodes = list(onnx.load(files[1]).graph.node)
    made_by = {name: node for node in nodes for name in node.output}
    convolutions = [at for at, node in enumerate(nodes) if node.op_type == "Conv"]
    between = nodes[convolutions[0] : convolutions[-1] + 1]
    assert {"Conv", "Sigmoid", "Mul", "MaxPool"} < {node.op_type for node in between}
    assert "BatchNormalization" not in {node.op_type for node in between}
    for node in between:
        if node.op_type in ("Conv", "Sigmoid", "Mul", "MaxPool"):
            assert made_by[node.input[0]].op_type == "DequantizeLinear", node.name


def test_a_norm_goes_before_the_maximum_that_it_followed_and_the_answers_stay(
    shipped_onnx, images, tmp_path
):
    model = onnx.load(shipped_onnx)
    kinds = [node.op_type for node in model.graph.node]
    at = [i for i, kind in enumerate(kinds) if kind == "BatchNormalization"]
    assert [kinds[i - 1] for i in at] == ["MaxPool"] * 3
    normalize_before_pooling(model.graph)
    onnx.checker.check_model(model, full_check=True)
    moved = [node.op_type for node in model.graph.node]
    assert [moved[i - 1 : i + 1] for i in at] == [["BatchNormalization", "MaxPool"]] * 3
    onnx.save(model, tmp_path / "moved.onnx")
    ours = run_onnx(tmp_path / "moved.onnx")(images[:20])
    assert ours == pytest.approx(run_onnx(shipped_onnx)(images[:20]), abs=1e-5)


def test_a_norm_with_a_negative_factor_stays_after_the_maximum(shipped_onnx):
    model = onnx.load(shipped_onnx)
    norm = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
    factors = next(one for one in model.graph.initializer if one.name == norm.input[1])
    values = onnx.numpy_helper.to_array(factors).copy()
    values[3] = -0.1
    factors.CopyFrom(onnx.numpy_helper.from_array(values, factors.name))
    normalize_before_pooling(model.graph)
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert [made_by[node.input[0]] for node in norms] == ["MaxPool", "Conv", "Conv"]


def test_it_mostly_answers_as_the_network_does_for_any_size_of_batch(shipped, files, images):
    ours = predict_all(eager(shipped), images)
    theirs = predict_all(run_onnx(files[1]), images)
    assert (ours.argmax(1) == theirs.argmax(1)).mean() > 0.8  # it was trained on other pictures
    assert theirs.sum(axis=1) == pytest.approx(np.ones(len(images)), abs=1e-4)
    alone = run_onnx(files[1])(images[:1])
    assert alone == pytest.approx(theirs[:1], abs=1e-3)


def test_forms_are_compared_with_the_first(shipped, files, images):
    labels = eager(shipped)(images[:40]).argmax(1)
    forms = {"eager": eager(shipped), "onnx": run_onnx(files[0]), "same": eager(shipped)}
    measured = compare_forms(forms, images[:40], labels)
    assert measured["eager"].top1 == measured["same"].top1 == 1
    assert measured["onnx"].same_top1 == 40
    assert 0 < measured["onnx"].largest_difference < 1e-4
    assert measured["same"].largest_difference == 0
    assert all(form.images_per_s > 0 for form in measured.values())
    assert all(0 < form.p50_ms <= form.p99_ms for form in measured.values())


def test_the_command_writes_both_files_and_a_card(checkpoint, tmp_path, capsys):
    flags = ["--checkpoint-path", str(checkpoint), "--out", str(tmp_path / "net.onnx")]
    assert main(["export", "onnx", *flags]) == 0
    assert "the same class as PyTorch on" in capsys.readouterr().out
    assert main(["export", "onnx", *flags, "--int8"]) == 0
    card = (tmp_path / "net-int8.md").read_text()
    assert "SYNTHETIC" in card
    assert "| net-int8.onnx |" in card
    scores = open_network(tmp_path / "net-int8.onnx").score(
        torch.zeros(3, 3, 32, 32).byte().numpy()
    )
    assert scores.probs.shape == (3, 100)


def test_without_the_data_set_the_command_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("CIFAR100_DIR", raising=False)
    weights = str(REPOSITORY / SHIPPED_MODEL)
    flags = ["--checkpoint-path", weights, "--data-dir", str(tmp_path / "none")]
    assert main(["export", "onnx", *flags, "--out", str(tmp_path / "m.onnx")]) == 0
    assert "of 8 drawings" in capsys.readouterr().out
