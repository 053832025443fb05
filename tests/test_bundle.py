import dataclasses
import io

import pytest
import torch

from resnet_cifar100.bundle import (
    Bundle,
    Calibration,
    _digest,
    dtype_of,
    load_bundle,
    save_bundle,
    save_safetensors,
)
from resnet_cifar100.config import Config
from resnet_cifar100.errors import CheckpointError
from resnet_cifar100.storage import sha256_of
from tests.bundles import untrained
from tests.conftest import REPOSITORY


@pytest.fixture
def bundle() -> Bundle:
    config = Config(model="resnet20", image_size=16, dropout=0.0)
    return untrained(config, title="CIFAR-100", metrics={"test/top1": 0.5})


def test_a_bundle_survives_the_disk(bundle, tmp_path):
    save_bundle(bundle, tmp_path / "a.pth", tmp_path / "deep" / "b.pth")
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    for path in (tmp_path / "a.pth", tmp_path / "deep" / "b.pth"):
        again = load_bundle(path)
        assert torch.equal(again.logits(images), bundle.logits(images))
        for field in dataclasses.fields(Bundle):
            if field.name not in {"model", "preprocess"}:
                assert getattr(again, field.name) == getattr(bundle, field.name)


def test_the_file_loads_with_weights_only_and_has_its_checksum_beside(bundle, tmp_path):
    path = tmp_path / "best_model.pth"
    save_bundle(bundle, path)
    content = torch.load(path, weights_only=True)
    assert content["fine_names"][0] == "apple"
    line = (tmp_path / "best_model.pth.sha256").read_text()
    assert line == f"{sha256_of(path.read_bytes())}  best_model.pth\n"


def test_any_image_size_is_taken(bundle):
    for size in ((32, 32), (16, 16), (7, 90), (1, 1)):
        logits = bundle.logits(torch.zeros(2, 3, *size, dtype=torch.uint8))
        assert logits.shape == (2, 100)
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"state_dict": {}},
        {"state_dict": {}, "sha256": "", "format": 1},
        {"state_dict": 3, "sha256": "", "format": 99},
        [1, 2],
        torch.zeros(3),
    ],
    ids=str,
)
def test_a_foreign_file_is_refused(content, tmp_path):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    (tmp_path / "foreign.pth").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match=r"foreign\.pth"):
        load_bundle(tmp_path / "foreign.pth")


def test_a_missing_file_says_which_command_makes_one(tmp_path):
    with pytest.raises(CheckpointError, match=r"train\.py"):
        load_bundle(tmp_path / "best_model.pth")


def test_a_file_that_cannot_be_replaced_is_left_alone(bundle, tmp_path):
    path = tmp_path / "taken"
    path.write_text("a file where a folder should be")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_bundle(bundle, path / "best_model.pth")
    assert path.read_text() == "a file where a folder should be"


def test_shipped_weights_are_half_the_size_and_predict_the_same_up_to_fp16(bundle, tmp_path):
    save_bundle(bundle, tmp_path / "whole.pth")
    path = tmp_path / "half.safetensors"
    save_safetensors(bundle, path)
    assert path.stat().st_size < 0.6 * (tmp_path / "whole.pth").stat().st_size
    line = (tmp_path / "half.safetensors.sha256").read_text()
    assert line == f"{sha256_of(path.read_bytes())}  half.safetensors\n"
    again = load_bundle(path)
    assert again.provenance == bundle.provenance
    assert all(p.dtype == torch.float32 for p in again.model.parameters())
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    assert torch.allclose(again.logits(images), bundle.logits(images), atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_file_tells_the_type_of_its_weights(dtype, bundle, tmp_path):
    save_safetensors(bundle, tmp_path / "some.safetensors", dtype)
    assert dtype_of(tmp_path / "some.safetensors") == dtype


SHIPPED = {"fast": 0.7591, "resnet44v2": 0.7785}  # test top-1 that README states
HITS = {"fast": 391, "resnet44v2": 399}  # of the first 500 test images


def test_all_weights_of_the_repository_are_tested():
    assert {path.stem for path in (REPOSITORY / "weights").glob("*.safetensors")} == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_weights_of_the_repository_are_sound(name):
    path = REPOSITORY / f"weights/{name}.safetensors"
    shipped = load_bundle(path)
    assert shipped.provenance["dataset"] == "CIFAR-100"
    assert shipped.provenance["metrics"]["test/top1"] == SHIPPED[name]
    assert path.with_name(f"{path.name}.sha256").read_text().split()[0] == sha256_of(
        path.read_bytes()
    )
    assert path.stat().st_size < 12e6


@pytest.mark.parametrize("name", SHIPPED)
def test_the_weights_of_the_repository_name_real_pictures(name, real_dataset):
    images, labels = (column[:500] for column in real_dataset.test)
    logits = load_bundle(REPOSITORY / f"weights/{name}.safetensors").logits(images)
    hits = int((logits.argmax(1) == labels).sum())
    assert hits == pytest.approx(HITS[name], abs=1)  # another processor rounds otherwise


@pytest.mark.parametrize("save", [save_bundle, save_safetensors])
def test_a_calibration_survives_the_disk(bundle, tmp_path, save):
    means = torch.nn.functional.normalize(torch.randn(100, 64), dim=1).half().float()
    calibration = Calibration(0.5, 0.25, "a test", means)
    path = tmp_path / ("a.pth" if save is save_bundle else "a.safetensors")
    save(dataclasses.replace(bundle, calibration=calibration), path)
    again = load_bundle(path).calibration
    assert again == calibration
    assert torch.equal(again.class_means, means)


def test_a_file_without_a_calibration_is_read(bundle, tmp_path):
    path = tmp_path / "old.pth"
    save_bundle(bundle, path)
    content = torch.load(path, weights_only=True)
    del content["calibration"], content["sha256"]
    weights = content.pop("state_dict")
    torch.save({**content, "state_dict": weights, "sha256": _digest(weights, content)}, path)
    assert load_bundle(path).calibration == Calibration()
