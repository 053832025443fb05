import dataclasses

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cifar100.analysis.predictions import Predictions, predict_split
from resnet_cifar100.bundle import Calibration
from resnet_cifar100.config import Config
from resnet_cifar100.data.loader import Split
from resnet_cifar100.engine.evaluate import EVAL_BATCH_SIZE
from resnet_cifar100.errors import CheckpointError
from tests import reference
from tests.bundles import untrained


def drawn(count: int = 300, classes: int = 10, temperature: float = 1.7) -> Predictions:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(count, classes, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    labels[::2] = logits[::2].argmax(dim=1)  # half of them right
    return Predictions(logits, labels, temperature)


def test_all_that_is_said_of_an_image_is_what_a_slow_loop_says():
    predictions = drawn()
    for index, row in enumerate(predictions.logits.double().tolist()):
        calibrated = np.exp(np.array(row) / 1.7)
        calibrated /= calibrated.sum()
        label, predicted = int(predictions.labels[index]), int(np.argmax(row))
        assert predictions.probs[index].numpy() == pytest.approx(calibrated, abs=1e-6)
        assert predictions.predicted[index] == predicted
        assert float(predictions.confidence[index]) == pytest.approx(max(calibrated), abs=1e-6)
        assert predictions.hits[index] == (predicted == label)
        loss = np.log(np.exp(row).sum()) - row[label]
        assert float(predictions.losses[index]) == pytest.approx(loss, abs=1e-5)


def test_loss_and_accuracy_are_those_of_scikit_learn():
    predictions = drawn()
    raw = predictions.logits.double().softmax(dim=1)
    loss = sklearn.metrics.log_loss(predictions.labels, raw, labels=range(10))
    assert float(predictions.losses.mean()) == pytest.approx(loss, abs=1e-6)
    top1 = sklearn.metrics.accuracy_score(predictions.labels, predictions.predicted)
    assert float(predictions.hits.float().mean()) == pytest.approx(top1, abs=1e-6)


def test_a_temperature_changes_how_sure_an_answer_is_and_nothing_else():
    raw, calibrated = drawn(temperature=1.0), drawn(temperature=4.0)
    assert torch.equal(raw.predicted, calibrated.predicted)
    assert torch.equal(raw.losses, calibrated.losses)
    assert raw.top_k(3) == calibrated.top_k(3)
    assert (raw.confidence > calibrated.confidence).all()


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 8), st.integers(1, 30), st.integers(1, 10))
def test_top_k_is_the_slow_share_and_that_of_scikit_learn(seed, classes, images, k):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.rand(images, classes, generator=generator, dtype=torch.float64).float()
    labels = torch.randint(classes, (images,), generator=generator)
    share = Predictions(logits, labels).top_k(k)
    assert share == pytest.approx(reference.top_k_share(logits.numpy(), labels.numpy(), k))
    if k < classes and classes > 2:
        expected = sklearn.metrics.top_k_accuracy_score(labels, logits, k=k, labels=range(classes))
        assert share == pytest.approx(expected, abs=1e-6)


def test_every_label_is_among_as_many_classes_as_there_are():
    assert drawn().top_k(10) == drawn().top_k(99) == 1


def test_the_file_holds_plain_arrays(tmp_path):
    predictions = drawn()
    predictions.save(tmp_path / "deep" / "predictions.npz", "SYNTHETIC")
    with np.load(tmp_path / "deep" / "predictions.npz", allow_pickle=False) as file:
        arrays = dict(file)
    named = {"dataset", "logits", "labels", "predicted", "confidence", "temperature"}
    assert set(arrays) == named
    for name in ("logits", "labels", "predicted", "confidence"):
        ours = getattr(predictions, name).numpy()
        assert arrays[name].dtype == ours.dtype
        assert np.array_equal(arrays[name], ours)
    assert arrays["logits"].dtype == np.float32
    assert float(arrays["temperature"]) == 1.7
    assert str(arrays["dataset"]) == "SYNTHETIC"
    again = Predictions(*(torch.from_numpy(arrays[name]) for name in ("logits", "labels")), 1.7)
    assert torch.equal(again.confidence, predictions.confidence)


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(CheckpointError, match=r"predictions\.npz cannot be written"):
        drawn().save(tmp_path / "taken" / "predictions.npz", "SYNTHETIC")


def test_a_split_is_predicted_image_by_image_in_its_order():
    bundle = untrained(Config(model="resnet8x4_s2", dropout=0.5, image_size=8))
    bundle = dataclasses.replace(bundle, calibration=Calibration(temperature=0.5))
    count = EVAL_BATCH_SIZE + 7
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    predictions = predict_split(bundle, Split(images, torch.arange(count) % 100))
    assert predictions.logits.shape == (count, 100)
    assert torch.allclose(predictions.logits, bundle.logits(images), atol=1e-5)
    assert torch.allclose(predictions.logits[-1:], bundle.logits(images[-1:]), atol=1e-5)
    assert torch.equal(predictions.labels, torch.arange(count) % 100)
    assert predictions.temperature == 0.5
    assert not predictions.logits.is_inference()
