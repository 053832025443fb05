"""Which record belongs to which weights, and where a report may be written."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from resnet_cifar100.bundle import Calibration, load_bundle, save_bundle, save_safetensors
from tests.analysis.test_analyze import QUICK, Page, analyze, train
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_data_dir) -> Path:
    return train(tmp_path_factory.mktemp("mine"), tiny_data_dir, epochs=2)


@pytest.fixture(scope="module")
def other(tmp_path_factory, tiny_data_dir) -> Path:
    return train(tmp_path_factory.mktemp("other"), tiny_data_dir, epochs=2, seed=1)


def knows_its_record(folder: Path) -> bool:
    return "status" in json.loads((folder / "metrics.json").read_text())


def test_weights_find_the_record_of_their_run_beside_them(run, tmp_path):
    assert analyze(run.parent / "best_model.pth", tmp_path, *QUICK) == 0
    assert knows_its_record(tmp_path)


def test_a_folder_of_checkpoints_stands_for_its_best_model(run, tmp_path):
    assert analyze(run.parent, tmp_path, *QUICK) == 0
    assert knows_its_record(tmp_path)


def test_calibration_and_a_new_name_do_not_part_weights_from_their_record(run, tmp_path):
    folder = shutil.copytree(run.parent, tmp_path / "copy")
    bundle = load_bundle(folder / "best_model.pth")
    calibrated = dataclasses.replace(bundle, calibration=Calibration(temperature=2.0, source="x"))
    save_bundle(calibrated, folder / "my_net.pth")
    assert analyze(folder / "my_net.pth", tmp_path / "out", *QUICK) == 0
    assert knows_its_record(tmp_path / "out")


def test_a_record_elsewhere_can_be_named(run, tmp_path):
    save_safetensors(load_bundle(run / "best_model.pth"), tmp_path / "net.safetensors")
    assert analyze(tmp_path / "net.safetensors", tmp_path / "out", *QUICK) == 0
    assert not knows_its_record(tmp_path / "out")
    assert "record of the run is not known" in Page(tmp_path / "out").text
    flags = ("--record", run, *QUICK)
    assert analyze(tmp_path / "net.safetensors", tmp_path / "out", *flags) == 0
    assert knows_its_record(tmp_path / "out")


def test_the_record_of_another_run_is_refused(run, other, tmp_path, capsys):
    published = REPOSITORY / "records" / "2026-11-23_fast-seed0"
    for record in (other, published):
        out = tmp_path / "out"
        assert analyze(run / "best_model.pth", out, "--record", record, *QUICK) == 3
        assert "is not of the run that made" in capsys.readouterr().err
        assert not out.exists()


def test_a_network_that_answers_with_nan_is_refused(run, tmp_path, capsys):
    bundle = load_bundle(run / "best_model.pth")
    with torch.no_grad():
        bundle.model.head.weight.fill_(3e38)  # finite, and no logit is
    save_bundle(bundle, tmp_path / "nan.pth")
    assert analyze(tmp_path / "nan.pth", tmp_path / "out", *QUICK) == 4
    assert "not finite" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_to_is_refused_before_the_work(run, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert analyze(run, tmp_path / "file", *QUICK) == 4
    said = capsys.readouterr()
    assert "cannot be written to" in said.err
    assert "Evaluating" not in said.out
    assert (tmp_path / "file").read_text() == "mine"


def test_an_earlier_report_goes_and_other_files_stay(run, tmp_path):
    mine = [tmp_path / "notes.md", tmp_path / "figures" / "hero-light.png"]
    stale = [tmp_path / "predictions.npz", tmp_path / "figures" / "pairs-dark.png"]
    (tmp_path / "figures").mkdir()
    for path in (*mine, *stale):
        path.write_text("old")
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "best_model.pth").unlink()
    assert analyze(folder, tmp_path) == 0
    assert all(path.read_text() == "old" for path in mine)
    assert not any(path.exists() for path in stale)
