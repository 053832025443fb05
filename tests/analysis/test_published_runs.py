from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_cifar100.analysis.figures import save_curves
from resnet_cifar100.analysis.logbook import publish_run
from resnet_cifar100.engine.log_page import render_markdown
from resnet_cifar100.engine.record import RunRecord, load_record
from resnet_cifar100.errors import CheckpointError, ConfigError
from tests.conftest import REPOSITORY
from tests.records import record_of


def run_of(epochs: int, **changes: str) -> RunRecord:
    """Return a run of four epochs after some of them."""
    shares = [0.1 * epoch for epoch in range(epochs)]
    status = "finished" if epochs == 4 else "running"
    record = record_of(shares, shares, status=status, epochs=4, **changes)
    record.history.steps.extend(
        {"step": step, "train/loss": 40 / step, "lr": 0.1, "train_seconds": 6.0 * step}
        for step in range(5, 10 * epochs + 1, 5)
    )
    if epochs == 4:
        result = {"test/top1": 0.27, "test/top5": 0.6, "test/loss": 1.0, "epoch": 3}
        record.result = {**result, "chosen_by": "x"}
    return record


@pytest.mark.parametrize("split", ["test", "val"])
@pytest.mark.parametrize("epochs", [0, 1, 4])
def test_a_run_can_be_drawn_at_any_stage(epochs, split, tmp_path):
    save_curves(run_of(epochs, split=split), tmp_path / "curves.png")
    pixels = np.asarray(Image.open(tmp_path / "curves.png"))
    assert pixels.shape[1] > 1000
    assert pixels.std() > 10  # something is drawn


@pytest.mark.parametrize("split", ["test", "val"])
@pytest.mark.parametrize("epochs", [0, 1, 4])
def test_a_record_survives_the_disk_and_gives_the_same_page(epochs, split, tmp_path):
    record = run_of(epochs, split=split)
    record.save(tmp_path)
    assert load_record(tmp_path) == record
    assert render_markdown(load_record(tmp_path)) == render_markdown(record)


def test_a_page_says_what_chose_the_weights_and_what_did_not():
    page = render_markdown(run_of(4))
    assert "**27.00%**" in page
    assert "chooses nothing" in page
    assert "Best val top-1" in render_markdown(run_of(4, split="val"))


def test_a_page_of_drawn_data_says_so_at_the_top():
    page = render_markdown(run_of(1, title="SYNTHETIC"))
    assert "SYNTHETIC" in page.splitlines()[0]
    assert "not CIFAR-100" in page


def test_a_running_page_tells_the_time_left():
    assert "about 0:03:00 of training left" in render_markdown(run_of(1))


def test_only_finished_runs_are_published_and_never_over_another(tmp_path):
    run_of(1).save(tmp_path / "running")
    with pytest.raises(CheckpointError, match="not finished"):
        publish_run(tmp_path / "running", "x", tmp_path)
    run_of(4).save(tmp_path / "done")
    publish_run(tmp_path / "done", "x", tmp_path)
    with pytest.raises(ConfigError, match="never overwritten"):
        publish_run(tmp_path / "done", "x", tmp_path)


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_folder_without_a_record_is_refused(damage, tmp_path):
    run_of(4).save(tmp_path)
    path = tmp_path / "run.json"
    if damage == "missing":
        path.unlink()
    else:
        path.write_text('{"title"' if damage == "cut" else '{"title": "x"}')
    with pytest.raises(CheckpointError):
        load_record(tmp_path)


PUBLISHED = sorted(path.parent for path in (REPOSITORY / "records").glob("*/run.json"))


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_every_published_page_is_the_rendering_of_its_record(folder: Path):
    record = load_record(folder)
    page = render_markdown(record)
    assert (folder / "README.md").read_text().replace("![Curves](curves.png)\n\n", "") == page
    assert not any(session["uncommitted_changes"] for session in record.environments)


def test_the_published_log_is_the_rendering_of_the_best_run():
    record = load_record(REPOSITORY / "records" / "2026-11-28_resnet44v2-teacher-seed0")
    assert (REPOSITORY / "logs_RESNET.md").read_text() == render_markdown(record)
