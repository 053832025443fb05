import numpy as np
from PIL import Image

from resnet_cifar100.data.drawings import DRAWINGS, write_drawings
from resnet_cifar100.data.images import load_image
from tests.names import FINE_NAMES


def test_the_drawings_are_pictures_and_always_the_same(tmp_path):
    (tmp_path / "again").mkdir()
    paths = write_drawings(tmp_path)
    assert len(paths) == len(DRAWINGS)
    for path, again in zip(paths, write_drawings(tmp_path / "again"), strict=True):
        with Image.open(path) as image:
            assert image.size == (256, 256)
        assert path.read_bytes() == again.read_bytes()


def test_the_network_recognises_what_is_drawn(tmp_path, shipped):
    import torch

    paths = {path.stem.removeprefix("drawn_"): path for path in write_drawings(tmp_path)}
    images = np.stack([load_image(path) for path in paths.values()]).transpose(0, 3, 1, 2)
    logits = shipped.logits(torch.from_numpy(images))
    seen = [FINE_NAMES[index] for index in logits.argmax(dim=1)]
    known = [(name, saw) for name, saw in zip(paths, seen, strict=True) if name in FINE_NAMES]
    assert len(known) == 7
    assert all(name == saw for name, saw in known), known
