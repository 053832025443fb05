"""Folders of runs, and what a run of several sessions says of them."""

import dataclasses
import os

import pytest

from resnet_cifar100.engine import runlog
from resnet_cifar100.engine.runs import new_run_dir
from resnet_cifar100.engine.trainer import fit
from resnet_cifar100.storage import remove_temporaries


def test_a_new_run_never_takes_the_folder_of_another(tiny_config):
    first = new_run_dir(tiny_config)
    first.mkdir(parents=True)
    second = new_run_dir(tiny_config)
    second.mkdir()
    assert second.name == f"{first.name}_2"
    assert new_run_dir(tiny_config).name == f"{first.name}_3"


def test_each_session_leaves_its_stamp_and_says_what_changed(
    tiny_config, tiny_dataset, tmp_path, console, monkeypatch
):
    fit(dataclasses.replace(tiny_config, epochs=1), tiny_dataset, tmp_path / "run", console)
    stamp = runlog.environment
    other = {"commit": "other", "processes": 3}
    monkeypatch.setattr(runlog, "environment", lambda *given: {**stamp(*given), **other})
    with console.capture() as said:
        record = fit(tiny_config, tiny_dataset, tmp_path / "run", console)
    assert [one["commit"] == "other" for one in record.environments] == [False, True]
    changes = said.get()
    assert "Since the last session: commit" in changes
    assert "Since the last session: processes 1 -> 3" in changes


@pytest.mark.parametrize("name", ["logs.md", "logs[1]*.md"])
def test_what_a_living_process_is_writing_stays(tmp_path, name):
    beyond_the_highest = 2**22 + 1
    mine, dead = (tmp_path / f".{name}.{pid}.tmp" for pid in (os.getpid(), beyond_the_highest))
    mine.touch()
    dead.touch()
    remove_temporaries(tmp_path / name)
    assert mine.exists()
    assert not dead.exists()
