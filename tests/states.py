"""The state of a run at a step, made without the steps before it."""

from resnet_cifar100.config import Config
from resnet_cifar100.data.cifar100 import Dataset, training_splits
from resnet_cifar100.data.loader import TrainLoader
from resnet_cifar100.engine.distill import load_teacher
from resnet_cifar100.engine.state import TrainState, create_state
from resnet_cifar100.runtime import create_runtime


def begun(config: Config, dataset: Dataset) -> tuple[TrainState, TrainLoader]:
    """Return the state before the first step, and what deals out the batches."""
    train, _ = training_splits(dataset, config)
    loader, runtime = TrainLoader(train, config), create_runtime(config)
    teacher = load_teacher(config, runtime, dataset.title)
    return create_state(config, runtime, loader, teacher), loader


def state_at(step: int, config: Config, dataset: Dataset) -> TrainState:
    """Return the same, with another number of steps taken."""
    state, _ = begun(config, dataset)
    state.step = step
    return state
