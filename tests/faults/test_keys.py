"""All that is saved is needed: without any of it, a resumed run ends with other bits."""

import dataclasses
import io
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from rich.console import Console

from resnet_cifar100.config import Config
from resnet_cifar100.data.cifar100 import Dataset
from resnet_cifar100.engine.checkpoint import load_newest_state
from resnet_cifar100.engine.state import TrainState
from resnet_cifar100.engine.trainer import fit
from tests.faults.training import settings
from tests.interruptions import StoppedError, fingerprint, stop_at, within

PARTS = ("model.", "ema.", "optimizer.", "losses.")
STEM_BIAS, FIRST_FILTERS = "optimizer.1.", "optimizer.2."  # the buffers of SGD and of Muon


class StoppedRun:
    """A run that was stopped at step 13, to resume as often as one likes."""

    def __init__(self, config: Config, dataset: Dataset, folder: Path) -> None:
        self.config = dataclasses.replace(within(config, folder), checkpoint_minutes=0)
        self.dataset, self.folder = dataset, folder
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, 13)
            with pytest.raises(StoppedError):
                self._go_on(folder / "saved")

    def _go_on(self, run_dir: Path) -> None:
        fit(self.config, self.dataset, run_dir, Console(file=io.StringIO()))

    @property
    def keys(self) -> list[str]:
        """The names of all tensors that are saved and read."""
        saved, _ = load_newest_state(self.folder / "saved")
        unread = {key for key in saved.tensors if "ema" in key and "batches_tracked" in key}
        return sorted({*saved.tensors} - unread)

    def end_without(self, part: str | None) -> str:
        """Resume it without the tensors whose names begin so; return its fingerprint."""
        complete = TrainState.load_tensors

        def load_the_rest(state, tensors):
            fresh = state.tensors()
            lost = {name for name in tensors if part and name.startswith(part)}
            assert lost or not part
            # An optimizer that has not begun has no memory.
            complete(state, tensors | {name: fresh.get(name, 0 * tensors[name]) for name in lost})

        resumed = self.folder / "resumed"
        shutil.copytree(self.folder / "saved", resumed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TrainState, "load_tensors", load_the_rest)
            self._go_on(resumed)
        found = fingerprint(resumed)
        shutil.rmtree(resumed)
        return found

    def needs(self, parts: Iterable[str]) -> bool:
        """Whether it ends with other bits without any one of these, and else with the same."""
        whole = self.end_without(None)
        assert self.end_without(None) == whole
        return all(self.end_without(part) != whole for part in parts)


def test_without_any_one_of_its_parts_a_state_leads_elsewhere(
    tiny_data_dir, tiny_dataset, tmp_path, full, figure
):
    config = settings(tiny_data_dir, ema_images=0)  # else the average is measured anew
    stopped = StoppedRun(config, tiny_dataset, tmp_path)
    tried = stopped.keys if full else PARTS
    assert stopped.needs(tried)
    figure("resumed without one saved tensor", f"noticed for {len(tried)} of {len(tried)} tensors")


def test_the_memory_of_either_optimizer_matters(speedy_config, tiny_dataset, tmp_path):
    assert StoppedRun(speedy_config, tiny_dataset, tmp_path).needs([STEM_BIAS, FIRST_FILTERS])
