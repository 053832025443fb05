"""The Python that the documents show: all of it does what they say."""

import ast
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import tyro
from PIL import Image

from resnet_cifar100 import recipes
from resnet_cifar100.cli.train import TrainFlags, training_settings
from resnet_cifar100.config import SHIPPED_MODEL, Config, ModelConfig
from resnet_cifar100.data import augment
from resnet_cifar100.models import factory
from tests.conftest import REPOSITORY


def code_of(page: str, holding: str) -> str:
    """Return the one block of Python in a page that holds these words."""
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / page).read_text(), re.DOTALL)
    (block,) = (block for block in blocks if holding in block)
    return block


def entry_of(block: str, namespace: dict[str, object]) -> dict[str, object]:
    """Run a block of functions that ends with a line for a dict; return that line as a dict."""
    functions, _, line = block.rpartition('\n"')
    scope = dict(namespace)
    exec(functions, scope)
    return eval(f'{{"{line.strip()}}}' if functions else f"{{{block}}}", scope)


def test_a_training_from_python(tmp_path, tiny_data_dir, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    block = code_of("docs/training.md", "create_recipe")
    small = 'dataset="synthetic", train_size=0, val_size=0, early_stopping_patience=0, epochs=1, '
    small += f"data_dir=__import__('pathlib').Path({str(tiny_data_dir)!r}), seed=1"
    exec(block.replace('"quick"', '"smoke"').replace("seed=1", small), {})
    assert 0 <= float(capsys.readouterr().out.splitlines()[-1]) <= 1
    assert (tmp_path / "checkpoints" / "best_model.pth").is_file()


def test_a_picture_named_from_python(tmp_path, monkeypatch, capsys, shipped):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").symlink_to((REPOSITORY / SHIPPED_MODEL).parent)
    Image.new("RGB", (60, 40), "orange").save(tmp_path / "picture.jpg")
    exec(code_of("docs/training.md", "load_image"), {})
    name, prob = capsys.readouterr().out.rsplit(maxsplit=1)
    assert name in shipped.fine_names
    assert 0.01 <= float(prob) <= 1


def test_a_new_network_is_one_line():
    (made,) = entry_of(code_of("CONTRIBUTING.md", "resnet26"), vars(factory)).values()
    network = made(ModelConfig(name="resnet26"))
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert sum(m.weight.shape[-1] != 1 for m in layers) == 26  # 1x1 shortcuts are not counted
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 100)


def test_a_new_recipe_is_one_function_and_one_line():
    (make,) = entry_of(code_of("CONTRIBUTING.md", "longer()"), vars(recipes)).values()
    assert make().epochs == 20
    assert "records/" in make.__doc__


def test_a_new_augmentation_is_one_function_and_one_line(monkeypatch):
    (grey,) = (added := entry_of(code_of("CONTRIBUTING.md", "grey("), vars(augment))).values()
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    monkeypatch.setattr(augment, "AUGMENTATIONS", {**augment.AUGMENTATIONS, **added})
    augment.Augment(("grey", "cutout:4"))
    changed = grey.apply(images, torch.Generator().manual_seed(0), 0.5)
    is_grey = (changed == changed[:, :1]).flatten(1).all(1)
    assert 10 <= is_grey.sum() <= 40
    assert torch.equal(changed[~is_grey], images[~is_grey])


def test_a_new_setting_is_one_field():
    block = code_of("CONTRIBUTING.md", "focal_gamma")
    scope = {"Config": Config, "dataclass": dataclass}
    head = "@dataclass(frozen=True, kw_only=True)\nclass Extended(Config):\n"
    exec(head + textwrap.indent(block, "    "), scope)
    extended = scope["Extended"]
    assert extended.from_json(Config().to_json()).focal_gamma == 0
    config = tyro.cli(extended, args=["--focal-gamma", "2"])
    assert config.focal_gamma == 2
    assert extended.from_json(config.to_json()) == config


def test_every_flag_is_explained_as_its_setting_is(capsys):
    with pytest.raises(SystemExit):
        training_settings(["--help"])
    said = squeezed(capsys.readouterr().out)
    settings = explained(REPOSITORY / "resnet_cifar100/config.py", "Config")
    settings |= explained(REPOSITORY / "resnet_cifar100/cli/train.py", "TrainFlags")
    assert settings.keys() == TrainFlags.__dataclass_fields__.keys()
    for name, sentence in settings.items():
        assert f"--{name.replace('_', '-')}" in said
        assert squeezed(sentence) in said, name


def explained(source: Path, name: str) -> dict[str, str]:
    """Return the sentence under each field of a class."""
    (cls,) = (
        node
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    return {
        field.target.id: text.value.value
        for field, text in zip(cls.body, cls.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }


def squeezed(text: str) -> str:
    return re.sub(r"[\s│╭╰─]", "", text)
