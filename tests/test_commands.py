"""Which files the commands take where none is named, and what `calibrate` writes."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from resnet_cifar100.analysis.calibration import fit_calibration, fit_class_means
from resnet_cifar100.bundle import dtype_of, load_bundle, save_safetensors
from resnet_cifar100.cli import main, screen
from resnet_cifar100.cli.measure import default_checkpoint
from resnet_cifar100.config import BEST_MODEL, SHIPPED_MODEL
from resnet_cifar100.data.cifar100 import training_splits
from resnet_cifar100.engine.record import load_record
from resnet_cifar100.engine.runs import newest_run_dir
from resnet_cifar100.engine.trainer import fit
from resnet_cifar100.errors import CheckpointError, ConfigError


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_the_newest_model_of_your_own_comes_before_the_shipped_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert default_checkpoint() == BEST_MODEL  # whose absence is explained when it is read
    touch(SHIPPED_MODEL)
    assert default_checkpoint() == SHIPPED_MODEL
    assert f"{BEST_MODEL} does not exist, so this uses {SHIPPED_MODEL}" in capsys.readouterr().out
    touch(BEST_MODEL)
    assert default_checkpoint() == BEST_MODEL
    assert "trained here last" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "report"),
    [
        ("checkpoints/best_model.pth", "reports/checkpoints"),
        ("checkpoints/plain/best_model.pth", "reports/plain"),
        ("checkpoints/2026-11-23_quick/best_model.pth", "reports/2026-11-23_quick"),
        ("checkpoints/plain/seed0/best_model.pth", "reports/plain/seed0"),
        ("records/2026-11-24_ablation/cutout/seed0/run.json", "reports/cutout/seed0"),
        ("records/2026-11-23_fast-seed0/run.json", "reports/2026-11-23_fast-seed0"),
        ("weights/fast.safetensors", "reports/fast"),
    ],
)
def test_a_report_goes_to_a_folder_that_tells_of_which_run_it_is(
    path, report, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    touch(Path(path))

    def name_folder(_path, _record, out, _options, _say):
        raise ConfigError(f"into {out}")

    monkeypatch.setattr("resnet_cifar100.analysis.analyze.analyze", name_folder)
    named = Path(path).parent if path.endswith("run.json") else Path(path)
    assert main(["analyze", str(named)]) == ConfigError.exit_code
    assert capsys.readouterr().err == f"into {report}\n"


def test_answers_for_programs_stand_alone_on_stdout(
    tiny_config, tiny_dataset, tmp_path, console, monkeypatch, capsys
):
    monkeypatch.setattr(screen.console, "stderr", False)  # to be put back
    fit(tiny_config, tiny_dataset, tmp_path / "run", console)
    weights = ["--checkpoint-path", str(tiny_config.checkpoint_path)]
    assert main(["evaluate", *weights, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    result = load_record(tmp_path / "run").result
    measured = json.loads(line)
    assert measured["top1"] == result["test/top1"]
    assert [measured[key] for key in ("dataset", "split", "images")] == ["SYNTHETIC", "test", 200]
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    (tmp_path / "no.png").write_text("no picture")
    files = [str(tmp_path / name) for name in ("red.png", "no.png")]
    assert main(["predict", *files, *weights, "--top-k", "2", "--json"]) == 6
    out, err = capsys.readouterr()
    named, refused = map(json.loads, out.splitlines())
    assert (named["file"], len(named["classes"])) == (files[0], 2)
    assert named["class"] == named["classes"][0]["class"]
    assert refused["file"] == files[1]
    assert refused["error"] in err


def test_resuming_takes_the_newest_run_that_is_not_finished(
    tiny_config, tiny_dataset, tmp_path, console
):
    short = dataclasses.replace(tiny_config, epochs=1)
    record = fit(short, tiny_dataset, tmp_path / "finished", console)
    unfinished = dataclasses.replace(record, status="running")
    with pytest.raises(CheckpointError, match="no unfinished run"):
        newest_run_dir(tmp_path)
    for age, name in enumerate(["finished", "newer", "older"]):
        if name != "finished":
            unfinished.save(tmp_path / name)
        os.utime(tmp_path / name / "run.json", (1e9 - age, 1e9 - age))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "run.json").write_text("{}")
    assert load_record(tmp_path / "finished").status == "finished"
    assert newest_run_dir(tmp_path) == tmp_path / "newer"


@pytest.fixture
def held_out(tiny_config, tiny_dataset, tmp_path, console) -> Path:
    """The weights of a run that held images out."""
    path = tmp_path / "held_out.pth"
    config = dataclasses.replace(tiny_config, val_size=100, epochs=1, checkpoint_path=path)
    fit(config, tiny_dataset, tmp_path / "held_out", console)
    return path


def test_calibrate_writes_into_weights_that_have_learned_all_images(
    held_out, tiny_config, tiny_dataset, tmp_path, console
):
    config = dataclasses.replace(tiny_config, epochs=1, seed=1)
    fit(config, tiny_dataset, tmp_path / "whole", console)
    path = tmp_path / "whole.safetensors"
    save_safetensors(load_bundle(config.checkpoint_path), path)
    before = load_bundle(path)
    assert main(["calibrate", "--held-out", str(held_out), "--checkpoint-path", str(path)]) == 0
    after, source = load_bundle(path), load_bundle(held_out)
    train, val = training_splits(tiny_dataset, source.config)
    expected = fit_calibration(source, train, val, after.calibration.source)
    assert after.calibration == expected  # but for its means, which are of its own network
    means = fit_class_means(before, tiny_dataset.train)
    assert torch.allclose(after.calibration.class_means, means, atol=1e-3)  # in fp16
    assert dtype_of(path) == torch.float16
    images = tiny_dataset.test.images[:20]
    assert torch.equal(after.logits(images), before.logits(images))


def test_calibrate_refuses_another_network(
    held_out, tiny_config, tiny_dataset, tmp_path, console, capsys
):
    config = dataclasses.replace(tiny_config, epochs=1, width=0.5)
    fit(config, tiny_dataset, tmp_path / "other", console)
    before = config.checkpoint_path.read_bytes()
    words = ["--held-out", str(held_out), "--checkpoint-path", str(config.checkpoint_path)]
    assert main(["calibrate", *words]) == ConfigError.exit_code
    assert "same network" in capsys.readouterr().err
    assert config.checkpoint_path.read_bytes() == before
