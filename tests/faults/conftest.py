"""Faults in two sizes, and one table of what was found.

`pytest` runs a few of each kind in seconds. `python -m pytest tests/faults --full --timeout 0` runs
them all, prints the table, and with `--figures PATH` writes it as JSON.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from resnet_cifar100.bundle import Bundle
from resnet_cifar100.config import Config
from resnet_cifar100.data.cifar100 import load_dataset
from resnet_cifar100.engine.checkpoint import save_state
from resnet_cifar100.engine.state import TrainState
from tests.bundles import untrained
from tests.states import state_at

FIGURES = pytest.StashKey[list[tuple[str, str]]]()
SMALL = Config(
    recipe="tiny",
    model="resnet8x4_s2",
    width=0.25,
    image_size=16,
    dataset="synthetic",
    batch_size=50,
    epochs=3,
    ema_decay=0.9,
    device="cpu",
    precision="fp32",
)
MakeState = Callable[..., TrainState]
MakeBundle = Callable[..., Bundle]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--full", action="store_true", help="inject all faults, not only a few")
    group.addoption("--figures", type=Path, help="with --full: write the table there, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.stash.setdefault(FIGURES, [])


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether all faults are asked for."""
    return bool(pytestconfig.getoption("full", default=False))


@pytest.fixture(scope="session")
def figure(pytestconfig: pytest.Config) -> Callable[[str, str], None]:
    """Add a row to the table: what was done, and what came of it."""
    rows = pytestconfig.stash.setdefault(FIGURES, [])
    return lambda name, text: rows.append((name, text))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash.get(FIGURES, [])
    if not (rows and config.getoption("full", default=False)):
        return
    terminalreporter.section("faults")
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        terminalreporter.write_line(f"{name:<{width}}  {text}")
    if path := config.getoption("figures", default=None):
        path.write_text(json.dumps(dict(rows), indent=2) + "\n")


@pytest.fixture(scope="session")
def make_state(tiny_data_dir: Path) -> MakeState:
    """Return a maker of small states, of 1 MB; those with another `mark` differ in each weight."""
    config = dataclasses.replace(SMALL, data_dir=tiny_data_dir)
    dataset = load_dataset(config)

    def make(step: int, mark: float | None = None, **settings: object) -> TrainState:
        state = state_at(step, dataclasses.replace(config, **settings), dataset)
        state.history.steps.append({"step": step, "train/loss": 1.0, "lr": 0.1, "train_seconds": 1})
        with torch.no_grad():
            for parameter in (*state.model.parameters(), *state.eval_model.parameters()):
                parameter += step if mark is None else mark
        return state

    return make


@pytest.fixture(scope="session")
def run_dir(make_state, tmp_path_factory) -> Path:
    """A run with sound states at steps 1 and 2; nobody may write to it."""
    folder = tmp_path_factory.mktemp("sound") / "run"
    for step in (1, 2):
        save_state(make_state(step), folder)
    return folder


@pytest.fixture(scope="session")
def make_bundle() -> MakeBundle:
    """Return a maker of small networks with all that a best_model.pth holds."""
    return lambda seed=0: untrained(SMALL, seed=seed, metrics={"test/top1": seed})
