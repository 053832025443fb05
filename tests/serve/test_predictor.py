import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_cifar100.data.images import load_image
from resnet_cifar100.errors import ImageError
from resnet_cifar100.serve.predictor import MAX_BATCH, Predictor, Scores
from tests.data.images.pictures import encode, picture, png
from tests.names import FINE_NAMES

CLOSE = 1e-4  # a batch of another size takes other kernels, which round differently


class CountingNetwork:
    """Says of each picture the number in its first pixel, and notes the sizes of its batches."""

    def __init__(self, best_prob=0.9, limit=50.0):
        self.best_prob = best_prob
        self.description = {
            "fine_names": FINE_NAMES,
            "coarse_names": ["one", "two"],
            "fine_to_coarse": [i % 2 for i in range(100)],
            "calibration": {"most_strangeness": limit},
        }
        self.batches = []
        self.open = threading.Event()
        self.open.set()
        self.is_busy = threading.Event()

    def score(self, images):
        self.is_busy.set()
        self.open.wait(10)
        self.batches.append(len(images))
        first = images[:, 0, 0, 0].astype(int)
        if (first == 255).any():
            raise RuntimeError("the network broke")
        probs = np.full((len(images), 100), 0.1 / 99, np.float32)
        probs[np.arange(len(images)), first % 100] = self.best_prob
        return Scores(probs, first.astype(np.float32))

    def heatmap(self, image, class_index):
        return None


def wait_until(is_so, seconds=20.0):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


def flat(number: int) -> bytes:
    return encode(picture().resize((32, 32)).point(lambda _: number))


def test_the_classes_are_those_of_the_bundle_in_order_of_probability(predictor, drawings, shipped):
    content = drawings["sunflower"].read_bytes()
    answer = predictor.classify(content, top_k=7)
    image = torch.from_numpy(load_image(content)).permute(2, 0, 1)[None]
    scaled = shipped.logits(image) / shipped.calibration.temperature
    probs, ids = scaled.softmax(dim=1)[0].topk(7)
    assert [one.label for one in answer.classes] == ids.tolist()
    assert [one.prob for one in answer.classes] == pytest.approx(probs.tolist(), abs=CLOSE)
    best = answer.classes[0]
    assert best.name == "sunflower"
    assert best.superclass == "flowers"
    assert np.array_equal(answer.pixels, load_image(content))


def test_a_batch_says_of_each_picture_what_it_says_alone(predictor):
    images = np.random.default_rng(0).integers(0, 256, (MAX_BATCH, 3, 32, 32), np.uint8)
    together = predictor.network.score(images)
    assert together.probs.shape == (MAX_BATCH, 100)
    assert together.probs.sum(axis=1) == pytest.approx(np.ones(MAX_BATCH), abs=1e-5)
    for image, probs, strangeness in zip(images, *together, strict=True):
        alone = predictor.network.score(image[None])
        assert np.abs(alone.probs[0] - probs).max() < CLOSE
        assert alone.strangeness[0] == pytest.approx(strangeness, abs=1e-3)


def test_what_waits_goes_through_the_network_together_and_nobody_gets_anothers_answer():
    network = CountingNetwork()
    predictor = Predictor(network)
    network.batches.clear()
    network.is_busy.clear()
    network.open.clear()
    numbers = list(range(40))
    with ThreadPoolExecutor(40) as pool:
        first = pool.submit(predictor.classify, flat(0))
        wait_until(lambda: network.is_busy.is_set())
        others = [pool.submit(predictor.classify, flat(number)) for number in numbers[1:]]
        wait_until(lambda: len(predictor._waiting) == 39)
        network.open.set()
        found = [future.result(10).classes[0].label for future in (first, *others)]
    assert found == numbers
    assert network.batches == [1, 16, 16, 7]


def test_a_picture_that_comes_again_is_answered_from_memory():
    network = CountingNetwork()
    predictor = Predictor(network)
    network.batches.clear()
    for _ in range(3):
        assert predictor.classify(flat(7)).classes[0].label == 7
    assert network.batches == [1]


def test_a_network_that_breaks_breaks_one_call_alone():
    predictor = Predictor(CountingNetwork())
    with pytest.raises(RuntimeError, match="broke"):
        predictor.classify(flat(255))
    assert predictor.classify(flat(3)).classes[0].label == 3


def test_doubt_has_its_reasons():
    sure = Predictor(CountingNetwork())
    assert sure.classify(flat(20)).doubt == ""
    assert "unlike" in sure.classify(flat(60)).doubt
    unsure = Predictor(CountingNetwork(best_prob=0.3, limit=None))
    assert "more likely right than wrong" in unsure.classify(flat(60)).doubt


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x89PNG\r\n\x1a\n", bytes(6_000_000)])
def test_what_is_no_picture_is_refused_in_a_sentence(predictor, content):
    with pytest.raises(ImageError, match=r"^The picture .*\.$"):
        predictor.classify(content)


def test_the_heat_map_is_of_the_picture(predictor, drawings):
    answer = predictor.classify(drawings["orange"].read_bytes())
    heat = predictor.heatmap(answer)
    assert heat.shape == (32, 32)
    assert heat.min() >= 0
    assert heat.max() == pytest.approx(1)


def in_18_encodings(image: Image.Image) -> dict[str, bytes]:
    """The same picture as files of many kinds."""
    rgba, grey16 = image.convert("RGBA"), np.asarray(image, np.uint16) * 257
    files = {
        "png": encode(image),
        "png with alpha": encode(rgba),
        "png of a palette": encode(image.quantize(256)),
        "png of 16 bits": png(grey16, 2),
        "jpeg": encode(image, "JPEG", quality=95),
        "progressive jpeg": encode(image, "JPEG", quality=90, progressive=True),
        "cmyk jpeg": encode(image.convert("CMYK"), "JPEG", quality=95),
        "webp": encode(image, "WEBP", quality=95),
        "lossless webp": encode(image, "WEBP", lossless=True),
        "bmp": encode(image, "BMP"),
        "gif": encode(image.quantize(256), "GIF"),
        "tiff": encode(image, "TIFF"),
        "compressed tiff": encode(rgba, "TIFF", compression="tiff_lzw"),
        "ycbcr tiff": encode(image.convert("YCbCr"), "TIFF"),
        "larger": encode(image.resize((900, 900))),
    }
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}
    turns[8] = Image.Transpose.ROTATE_270
    for orientation, turn in turns.items():
        note = Image.Exif()
        note[274] = orientation
        files[f"jpeg turned {orientation}"] = encode(
            image.transpose(turn), "JPEG", quality=95, exif=note
        )
    return files


@pytest.mark.parametrize("name", ["orange", "sunflower", "rocket", "sea"])
def test_the_kind_of_the_file_does_not_change_the_answer(predictor, drawings, name):
    with Image.open(drawings[name]) as drawing:
        files = in_18_encodings(drawing.convert("RGB"))
    assert len(files) == 18
    # Pillow writes uncompressed TIFF in YCbCr, but does not read it: refused, in a sentence.
    with pytest.raises(ImageError, match="save it as PNG first"):
        predictor.classify(files.pop("ycbcr tiff"))
    named = {kind: predictor.classify(content).classes[0].name for kind, content in files.items()}
    assert set(named.values()) == {name}, named


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr("resnet_cifar100.serve.predictor.REMEMBERED", 3)
    network = CountingNetwork()
    predictor = Predictor(network)
    for number in (1, 2, 3, 1, 4):  # then 2 is the one that was not asked for longest
        predictor.classify(flat(number))
    network.batches.clear()
    for number in (1, 3, 4, 2):
        predictor.classify(flat(number))
    assert network.batches == [1]


def test_two_pictures_at_most_are_decoded_at_a_time(monkeypatch):
    inside, most, let_go = [], [], threading.Event()

    def slow(content):
        inside.append(content)
        most.append(len(inside))
        let_go.wait(10)
        inside.remove(content)
        return load_image(content)

    monkeypatch.setattr("resnet_cifar100.serve.predictor.load_image", slow)
    predictor = Predictor(CountingNetwork())
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(predictor.classify, flat(number)) for number in range(1, 7)]
        wait_until(lambda: len(most) == 2)
        let_go.set()
        assert all(answer.result().classes for answer in answers)
    assert max(most) == 2
