import io
import json

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from resnet_cifar100.config import SHIPPED_MODEL, Config
from resnet_cifar100.data.images import square_32
from resnet_cifar100.errors import CheckpointError
from resnet_cifar100.export.onnx import save_onnx
from resnet_cifar100.serve.networks import TorchNetwork, open_network
from resnet_cifar100.serve.predictor import Predictor
from resnet_cifar100.serve.texts import about
from tests.bundles import untrained
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (33, 3, 32, 32), np.uint8)


def test_the_file_is_sound_and_says_what_it_is(shipped_onnx, shipped):
    model = onnx.load(shipped_onnx)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.key for entry in model.metadata_props} >= {"description"}
    description = open_network(shipped_onnx).description
    assert description["fine_names"] == list(shipped.fine_names)
    assert description["provenance"] == shipped.provenance


@pytest.mark.parametrize("count", [1, 2, 33])
def test_it_answers_as_the_bundle_does_for_any_size_of_batch(shipped_onnx, images, count):
    bundle = open_network(REPOSITORY / SHIPPED_MODEL)
    ours, theirs = open_network(shipped_onnx).score(images[:count]), bundle.score(images[:count])
    assert ours.probs.shape == (count, 100)
    assert np.abs(ours.probs - theirs.probs).max() < 1e-4
    assert np.abs(ours.strangeness - theirs.strangeness).max() < 1e-3


def test_no_real_picture_is_named_differently(shipped_onnx, real_dataset):
    pictures = real_dataset.test.images[:500].numpy()
    ours = open_network(shipped_onnx).score(pictures).probs.argmax(axis=1)
    theirs = open_network(REPOSITORY / SHIPPED_MODEL).score(pictures).probs.argmax(axis=1)
    assert (ours != theirs).sum() <= 1


@pytest.mark.parametrize(
    "size", [(32, 32), (1, 1), (1, 50), (33, 48), (20, 20), (97, 211), (500, 333), (601, 600)]
)
def test_pictures_of_any_size_are_seen_as_everywhere_else_in_the_project(shipped_onnx, size):
    generator = np.random.default_rng(size[0])
    pictures = generator.integers(0, 256, (3, *size, 3), np.uint8)
    session = onnxruntime.InferenceSession(shipped_onnx)
    channels_first = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
    probs, seen = session.run(["probs", "pixels"], {"images": channels_first})
    ours = np.stack([square_32(Image.fromarray(one)) for one in pictures]).transpose(0, 3, 1, 2)
    differences = np.abs(seen.astype(int) - ours)  # two ways to round sums
    assert differences.max() <= 1
    assert (differences > 0).mean() < 1e-3
    assert np.array_equal(probs, session.run(["probs"], {"images": seen})[0])


def test_a_predictor_takes_it_without_heat_maps(shipped_onnx, images):
    predictor = Predictor(open_network(shipped_onnx))
    scores = predictor.network.score(images)
    assert scores.probs.sum(axis=1) == pytest.approx(np.ones(33), abs=1e-5)
    assert predictor.network.heatmap(images[0], 0) is None


def test_a_file_that_is_not_one_is_refused(shipped_onnx, tmp_path):
    content = shipped_onnx.read_bytes()
    for name, damaged in {"short": content[:5000], "empty": b"", "text": b"hello"}.items():
        (tmp_path / f"{name}.onnx").write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged or not of this project"):
            open_network(tmp_path / f"{name}.onnx")
    model = onnx.load(shipped_onnx)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(CheckpointError, match="damaged or not of this project"):
        open_network(tmp_path / "foreign.onnx")
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_network(tmp_path / "missing.onnx")


def test_images_of_another_size_are_resized_inside(images, tmp_path):
    bundle = untrained(Config(model="resnet20v2", image_size=24))
    save_onnx(bundle, tmp_path / "small.onnx")
    ours = open_network(tmp_path / "small.onnx").score(images)
    assert np.abs(ours.probs - TorchNetwork(bundle).score(images).probs).max() < 1e-3


def described(shipped_onnx, path, change):
    model = onnx.load(shipped_onnx)
    (entry,) = (entry for entry in model.metadata_props if entry.key == "description")
    entry.value = json.dumps(change(json.loads(entry.value)))
    onnx.save(model, path)


@pytest.mark.parametrize(
    "change",
    [
        lambda _: {},
        lambda _: [],
        lambda d: {
            **d,
            "fine_names": d["fine_names"][1:],
            "fine_to_coarse": d["fine_to_coarse"][1:],
        },
        lambda d: {**d, "coarse_names": []},
        lambda d: {**d, "provenance": {}},
        lambda d: {**d, "model": {"name": 3}},
        lambda d: {**d, "calibration": {"temperature": 0}},
        lambda d: {**d, "calibration": {"source": None}},
    ],
)
def test_a_file_that_describes_itself_wrongly_is_refused(shipped_onnx, tmp_path, change):
    path = tmp_path / "strange.onnx"
    described(shipped_onnx, path, change)
    with pytest.raises(CheckpointError, match="damaged or not of this project"):
        open_network(path)


def test_a_file_without_a_calibration_answers_and_is_described(shipped_onnx, tmp_path):
    path = tmp_path / "older.onnx"
    described(shipped_onnx, path, lambda d: {k: v for k, v in d.items() if k != "calibration"})
    predictor = Predictor(open_network(path))
    picture = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(picture, "PNG")
    assert predictor.classify(picture.getvalue()).classes
    assert "not calibrated" in about(predictor.network.description, path)


def test_a_file_with_other_answers_is_refused(shipped_onnx, tmp_path):
    model = onnx.load(shipped_onnx)
    (probs,) = (output for output in model.graph.output if output.name == "probs")
    model.graph.output.remove(probs)
    onnx.save(model, tmp_path / "silent.onnx")
    with pytest.raises(CheckpointError, match="damaged or not of this project"):
        open_network(tmp_path / "silent.onnx")
