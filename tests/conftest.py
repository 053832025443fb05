"""Small data and small settings: a whole run in these takes about a second."""

import dataclasses
import io
import os
from pathlib import Path

import pytest
import torch
from rich.console import Console

from resnet_cifar100.config import Config
from resnet_cifar100.data.cifar100 import (
    SYNTHETIC_FOLDER,
    Dataset,
    find_cifar100,
    load_dataset,
)
from resnet_cifar100.data.synthetic import write_synthetic

# What a machine may have set for other purposes; with GIT_DIR a test would commit to that one.
_COLORS = ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
_RANKS = ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID")
for _name in (*_COLORS, *_RANKS, *(name for name in os.environ if name.startswith("GIT_"))):
    os.environ.pop(_name, None)
_LOOPBACK = "127.0.0.1,localhost"
os.environ |= {"CUDA_VISIBLE_DEVICES": "", "NO_PROXY": _LOOPBACK, "no_proxy": _LOOPBACK}
os.environ["COLUMNS"] = "120"
torch.set_num_threads(1)  # the nets here are too small to share
REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What a test draws is the same each time, and in whatever order tests run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The folder of the official files; where there are none, the tests that ask are skipped."""
    folder = find_cifar100(REPOSITORY / "data")
    if folder is None:
        pytest.skip("CIFAR-100 is neither in data/ nor in $CIFAR100_DIR")
    return folder


@pytest.fixture(scope="session")
def tiny_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with 400 drawn training and 200 test images."""
    folder = tmp_path_factory.mktemp("data")
    write_synthetic(folder / SYNTHETIC_FOLDER, train_per_class=4, test_per_class=2)
    return folder


@pytest.fixture
def tiny_config(tiny_data_dir: Path, tmp_path: Path) -> Config:
    """Three epochs of eight steps, with all that is random or stateful turned on."""
    return Config(
        recipe="tiny",
        model="resnet8x4_s2",
        image_size=8,
        dropout=0.2,
        dataset="synthetic",
        data_dir=tiny_data_dir,
        crop_padding=2,
        batch_size=50,
        epochs=3,
        lr=0.05,
        warmup_epochs=1,
        label_smoothing=0.1,
        grad_clip_norm=5.0,
        ema_decay=0.9,
        device="cpu",
        precision="fp32",
        log_steps=3,
        checkpoint_minutes=1000,
        checkpoint_path=tmp_path / "checkpoints" / "best_model.pth",
        log_file=tmp_path / "logs.md",
    )


@pytest.fixture
def speedy_config(tiny_config: Config) -> Config:
    """The same with all that recipe fast has and others have not; steps 0 to 9 see 16 pixels."""
    return dataclasses.replace(
        tiny_config,
        model="speednet",
        width=0.25,
        image_size=20,
        early_sizes=(16,),
        early_shares=(0.4,),
        crop_fill="reflect",
        alternating_flip=True,
        optimizer="muon",
        nesterov=True,
        decay_norms=False,
        ema_decay=0.0,
    )


@pytest.fixture
def tiny_dataset(tiny_config: Config) -> Dataset:
    return load_dataset(tiny_config)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO())
