"""Pictures in, named classes with probabilities out: one network, shared by many threads.

Nothing here knows of a web page, and torch is only imported for weights that need it.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any, NamedTuple, Protocol

import numpy as np

from resnet_cifar100.constants import IMAGE_SIZE
from resnet_cifar100.data.images import load_image

MAX_BATCH = 16
MAX_DECODERS = 2  # a picture of 25 megapixels takes up to 400 MiB while it is decoded
REMEMBERED = 4096  # pictures, by their bytes
LEAST_PROB = 0.5  # below it, the best name is more often wrong than right


class Scores(NamedTuple):
    """What a network says of a batch: probs (N,K) float32, calibrated; strangeness (N,) float32."""

    probs: np.ndarray
    strangeness: np.ndarray


class Network(Protocol):
    """What a Predictor needs of a file with weights, whichever library reads it.

    `description` is that of the bundle: names, calibration, where it comes from.
    """

    @property
    def description(self) -> Mapping[str, Any]:
        """What is to be known of the file besides its weights."""

    def score(self, images: np.ndarray) -> Scores:
        """Score uint8 images (N,3,32,32)."""

    def heatmap(self, image: np.ndarray, class_index: int) -> np.ndarray | None:
        """Return where in a uint8 image (3,32,32) the network sees a class, (32,32) in 0..1."""


class NamedProb(NamedTuple):
    """One class of an answer."""

    label: int
    name: str
    superclass: str
    prob: float


@dataclass(frozen=True)
class Answer:
    """What the network says of one picture.

    `pixels` is what it saw, uint8 (32,32,3); `classes` the most probable first; `doubt` a sentence
    that says why the first of them should not be relied on, or "".
    """

    pixels: np.ndarray
    classes: tuple[NamedProb, ...]
    doubt: str


class _Seen(NamedTuple):
    """What is remembered of a picture: pixels (32,32,3), probs (K,), strangeness."""

    pixels: np.ndarray
    probs: np.ndarray
    strangeness: float


class Predictor:
    """Answers about pictures, for any number of threads.

    The network runs in one thread of its own, so that its thread pool exists once. Pictures that
    wait there at the same moment go through it as one batch. Answers are kept for pictures that
    come again.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._names = network.description["fine_names"]
        self._supers = [
            network.description["coarse_names"][coarse]
            for coarse in network.description["fine_to_coarse"]
        ]
        self._limit = network.description["calibration"]["most_strangeness"]
        self._decoders = BoundedSemaphore(MAX_DECODERS)
        self._network_thread = ThreadPoolExecutor(1, "network")
        self._waiting: deque[tuple[bytes, Future[tuple[np.ndarray, float]]]] = deque()
        self._memory: OrderedDict[bytes, _Seen] = OrderedDict()  # SHA-256 of a file -> what it is
        self._lock = Lock()
        self._score_one(bytes(3 * IMAGE_SIZE**2))  # warm-up

    def classify(self, picture: Path | bytes, top_k: int = 5) -> Answer:
        """Answer about one picture file.

        Raises:
            ImageError: for a file that is refused; the message is one sentence.
        """
        content = picture if isinstance(picture, bytes) else None
        digest = sha256(content).digest() if content else b""
        pixels, probs, strangeness = self._remembered(digest) or self._look(picture, digest)
        best = np.argsort(-probs, kind="stable")[:top_k]
        classes = tuple(
            NamedProb(index, self._names[index], self._supers[index], float(probs[index]))
            for index in best.tolist()
        )
        return Answer(pixels, classes, self._doubt(classes[0].prob, strangeness))

    def heatmap(self, answer: Answer) -> np.ndarray | None:
        """Return where the network sees the first class of `answer`, float (32,32) in 0..1.

        None where the weights are in a form that cannot tell (ONNX).
        """
        image = answer.pixels.transpose(2, 0, 1)
        return self._network_thread.submit(
            self.network.heatmap, image, answer.classes[0].label
        ).result()

    def _look(self, picture: Path | bytes, digest: bytes) -> _Seen:
        with self._decoders:
            pixels = load_image(picture)
        seen = _Seen(pixels, *self._score_one(pixels.tobytes()))
        if digest:
            with self._lock:
                self._memory[digest] = seen
                if len(self._memory) > REMEMBERED:
                    self._memory.popitem(last=False)
        return seen

    def _remembered(self, digest: bytes) -> _Seen | None:
        with self._lock:
            if digest in self._memory:
                self._memory.move_to_end(digest)
            return self._memory.get(digest)

    def _score_one(self, pixels: bytes) -> tuple[np.ndarray, float]:
        future: Future[tuple[np.ndarray, float]] = Future()
        self._waiting.append((pixels, future))
        self._network_thread.submit(self._score_waiting)
        return future.result()

    def _score_waiting(self) -> None:
        """Score what waits, up to a batch. Runs in the network's thread alone."""
        count = min(len(self._waiting), MAX_BATCH)
        taken = [self._waiting.popleft() for _ in range(count)]
        if not taken:
            return  # an earlier call took this one's picture along
        pixels = np.frombuffer(b"".join(pixels for pixels, _ in taken), np.uint8)
        images = pixels.reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3).transpose(0, 3, 1, 2)
        try:
            probs, strangeness = self.network.score(np.ascontiguousarray(images))
            rows = [(probs[i].copy(), float(strangeness[i])) for i in range(count)]
        except BaseException as error:  # whoever waits must hear of it
            for _, future in taken:
                future.set_exception(error)
            return
        for (_, future), row in zip(taken, rows, strict=True):
            future.set_result(row)

    def _doubt(self, prob: float, strangeness: float) -> str:
        if self._limit is not None and strangeness > self._limit:
            return "This looks unlike the pictures that the network was trained on."
        if prob < LEAST_PROB:
            return "No class is more likely right than wrong."
        return ""
