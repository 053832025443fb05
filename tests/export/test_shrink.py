import numpy as np
import onnx
import pytest

from resnet_cifar100.errors import CheckpointError
from resnet_cifar100.export.forms import eager, predict_all, run_onnx
from resnet_cifar100.export.shrink import save_small
from resnet_cifar100.serve.networks import open_network


def in_int8(path):
    return [
        node.output[0] for node in onnx.load(path).graph.node if node.op_type == "DequantizeLinear"
    ]


@pytest.mark.parametrize(("most", "count"), [(100_000_000, 0), (7_500_000, 2), (6_600_000, 4)])
def test_only_as_many_weights_as_it_takes_go_into_8_bits(shipped_onnx, tmp_path, most, count):
    path = tmp_path / "small.onnx"
    save_small(shipped_onnx, path, most)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert len(in_int8(path)) == count
    assert path.stat().st_size < min(most + 100_000, shipped_onnx.stat().st_size / 1.9)
    assert open_network(path).description == open_network(shipped_onnx).description


def test_the_answers_stay_close(shipped, shipped_onnx, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32), np.uint8)
    ours = predict_all(eager(shipped), images)
    for most, difference in ((100_000_000, 0.003), (7_500_000, 0.03)):
        save_small(shipped_onnx, tmp_path / "small.onnx", most)
        theirs = predict_all(run_onnx(tmp_path / "small.onnx"), images)
        assert 0 < np.abs(ours - theirs).max() < difference


def test_nearly_every_real_picture_is_named_the_same(shipped, shipped_onnx, tmp_path, real_dataset):
    images = real_dataset.test.images[:1000].numpy()
    save_small(shipped_onnx, tmp_path / "small.onnx", 7_500_000)
    ours = predict_all(eager(shipped), images).argmax(1)
    assert (
        predict_all(run_onnx(tmp_path / "small.onnx"), images).argmax(1) == ours
    ).mean() >= 0.995


def test_a_folder_that_cannot_be_written_is_one_sentence(shipped_onnx, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_small(shipped_onnx, tmp_path / "file" / "small.onnx", 0)
