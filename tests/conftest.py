"""Small data and small settings: a whole run in these takes about a second."""

import dataclasses
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from resnet_cifar100.bundle import Bundle, load_bundle
from resnet_cifar100.config import SHIPPED_MODEL, Config
from resnet_cifar100.data.cifar100 import (
    SYNTHETIC_FOLDER,
    Dataset,
    find_cifar100,
    load_dataset,
)
from resnet_cifar100.data.synthetic import write_synthetic
from tests.interruptions import Straight, train_straight, within

# What a machine may have set for other purposes; with GIT_DIR a test would commit to that one.
_COLORS = ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
_RANKS = ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID")
for _name in (*_COLORS, *_RANKS, *(name for name in os.environ if name.startswith("GIT_"))):
    os.environ.pop(_name, None)
for _name in [name for name in os.environ if name.startswith(("HF_", "HUGG"))]:
    del os.environ[_name]
_LOOPBACK = "127.0.0.1,localhost"
os.environ |= {"NO_PROXY": _LOOPBACK, "no_proxy": _LOOPBACK}
if not os.environ.get("TEST_GPU"):  # which make test-gpu sets
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["COLUMNS"] = "120"
# Where npm reaches nobody, it is tried once, half a minute at most, and its tests are skipped.
os.environ |= {"npm_config_fetch_retries": "0", "npm_config_fetch_timeout": "30000"}
torch.set_num_threads(1)  # the nets here are too small to share
REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a failing power supply could tell the difference, and no test here makes it fail."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


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
def real_dataset(real_data_dir: Path) -> Dataset:
    """The official data set, read and checked once; nobody may write to it."""
    return load_dataset(Config(data_dir=real_data_dir))


@pytest.fixture(scope="session")
def shipped() -> Bundle:
    """The network that comes with the repository; nobody may change it."""
    return load_bundle(REPOSITORY / SHIPPED_MODEL)


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
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try no compilation: it takes seconds."""
    monkeypatch.setattr("resnet_cifar100.runtime.compile_fault", lambda _device: "no compiler")


@pytest.fixture
def tiny_dataset(tiny_config: Config) -> Dataset:
    return load_dataset(tiny_config)


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Config], Straight]:
    """Return a function that trains without a stop, each settings once; its folders are shared."""
    runs: dict[Config, Straight] = {}

    def trained(config: Config) -> Straight:
        settings = within(config, Path())  # where a run writes to changes no bit of it
        if settings not in runs:
            runs[settings] = train_straight(config, tmp_path_factory.mktemp("straight"))
        return runs[settings]

    return trained


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO())
