"""The documented commands, run as a user runs them."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image

from resnet_cifar100.bundle import save_bundle
from resnet_cifar100.cli import main
from resnet_cifar100.data import download
from tests.bundles import untrained
from tests.conftest import REPOSITORY
from tests.faults.conftest import SMALL
from tests.processes import run


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_data_dir):
    """The folder and the output of a smoke run on drawn data, started from elsewhere."""
    folder = tmp_path_factory.mktemp("work")
    done = run(
        REPOSITORY / "train.py",
        *("--recipe", "smoke", "--dataset", "synthetic"),
        *("--train-size", 200, "--val-size", 200),
        *("--data-dir", tiny_data_dir, "--data-url", "https://me:secret@mirror.example/c.tar.gz"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_training_leaves_the_files_of_the_users_document_where_they_are_named(trained):
    folder, _ = trained
    assert (folder / "checkpoints" / "best_model.pth").is_file()
    assert (folder / "logs.md").read_text().startswith("# Training log")
    (run_dir,) = (folder / "checkpoints").glob("*_smoke_*")
    assert (run_dir / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_password_of_an_address_is_written_nowhere(trained):
    folder, output = trained
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert any(b"mirror.example" in content for content in contents)
    assert not any(b"secret" in content for content in contents)
    assert "secret" not in output


def test_training_ends_with_a_table_the_paths_and_what_to_do_next(trained):
    _, output = trained
    assert "Test top-1" in output
    for path in ("checkpoints/best_model.pth", "logs.md", "curves.png"):
        assert path in output
    commands = re.findall(r"^  \S*python\S* (.*)", output.split("Next:")[1], flags=re.M)
    assert len(commands) == 6  # one of them calibrate, as this run held images out
    without = [command for command in commands if "checkpoints/" not in command]
    assert [command.split()[0] for command in without] == ["test_data_setup/get_test_images.py"]


def test_synthetic_is_said_wherever_a_figure_stands(trained):
    folder, output = trained
    assert output.count("SYNTHETIC") >= 2
    assert "SYNTHETIC" in (folder / "logs.md").read_text().splitlines()[0]
    (run_dir,) = (folder / "checkpoints").glob("*_smoke_*")
    assert json.loads((run_dir / "run.json").read_text())["title"] == "SYNTHETIC"
    for name in ("metrics.jsonl", "metrics.csv"):
        lines = (run_dir / name).read_text().splitlines()
        assert sum("SYNTHETIC" in line for line in lines) == 2


def test_off_a_terminal_an_epoch_is_one_plain_line(trained):
    _, output = trained
    lines = [line for line in output.splitlines() if line.startswith("SYNTHETIC epoch")]
    assert len(lines) == 2
    assert "\x1b" not in output
    assert "images/s" in lines[0]


def test_evaluate_reports_the_figure_of_training(trained, tiny_data_dir, monkeypatch, capsys):
    folder, output = trained
    monkeypatch.chdir(folder)
    assert main(["evaluate", "--data-dir", str(tiny_data_dir)]) == 0
    percent = re.search(r"Test top-1.*?(\d+\.\d\d%)", output)[1]
    shown = capsys.readouterr().out
    assert percent in shown
    assert "SYNTHETIC" in shown


def test_predict_names_five_classes_for_each_picture(trained, tmp_path, capsys):
    folder, _ = trained
    for name, size in [("a.png", (32, 32)), ("b.jpg", (300, 200))]:
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    pictures = [str(tmp_path / "a.png"), str(tmp_path / "b.jpg")]
    weights = str(folder / "checkpoints" / "best_model.pth")
    assert main(["predict", *pictures, "--checkpoint-path", weights]) == 0
    shown = capsys.readouterr().out
    assert len(re.findall(r"\d+\.\d%", shown)) == 10
    assert "SYNTHETIC" in shown


def test_predict_refuses_a_bad_picture_and_still_answers_the_others(trained, tmp_path, capsys):
    folder, _ = trained
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    Image.new("RGB", (40, 40), "red").save(tmp_path / "good.png")
    pictures = [str(tmp_path / "bad.png"), str(tmp_path / "good.png")]
    weights = str(folder / "checkpoints" / "best_model.pth")
    assert main(["predict", *pictures, "--checkpoint-path", weights]) == 6
    shown, errors = capsys.readouterr()
    assert "bad.png" in errors
    assert len(re.findall(r"\d+\.\d%", shown)) == 5


def test_predict_shows_names_of_classes_as_they_are(tmp_path, capsys):
    names = tuple(f"[/b]{number}" for number in range(100))  # which rich would take for markup
    bundle = dataclasses.replace(untrained(SMALL), fine_names=names)
    save_bundle(bundle, tmp_path / "named.pth")
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    flags = ["--checkpoint-path", str(tmp_path / "named.pth")]
    assert main(["predict", str(tmp_path / "red.png"), *flags]) == 0
    assert capsys.readouterr().out.count("[/b]") == 5


def test_sample_pictures_are_written_with_their_index(tmp_path, tiny_data_dir):
    out = tmp_path / "pictures"
    done = run(
        "test_data_setup/get_test_images.py",
        "--dataset",
        "synthetic",
        "--data-dir",
        tiny_data_dir,
        "--out",
        out,
        "--per-class",
        2,
    )
    assert done.returncode == 0, done.stderr
    with (out / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 200
    assert all(row["file"].startswith("SYNTHETIC_") for row in rows)
    assert {row["dataset"] for row in rows} == {"SYNTHETIC"}
    for row in rows[:5]:
        assert np.asarray(Image.open(out / row["file"])).shape == (32, 32, 3)


def test_sample_pictures_of_the_real_test_set_are_its_pixels(tmp_path, real_dataset):
    done = run("test_data_setup/get_test_images.py", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "index.csv").open() as file:
        for row in csv.DictReader(file):
            pixels = np.asarray(Image.open(tmp_path / row["file"]))
            index = int(row["test_index"])
            assert np.array_equal(pixels, real_dataset.test.images[index].permute(1, 2, 0).numpy())
            assert int(row["label"]) == real_dataset.test.labels[index]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty folder to be in; what is no fault with an exit code escapes from main there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--lr", "-1"], ["--lr", "-1.0", "positive"]),
        (["--batch-size", "0"], ["--batch-size", "0", "2 to 50000"]),
        (["--batch-size", "many"], ["batch-size", "many"]),
        (["--model", "resnet9000"], ["--model", "resnet9000", "resnet44v2"]),
        (["--recipe", "slow"], ["--recipe", "slow", "quick"]),
        (["--device", "cuda:7"], ["--device", "cuda:7"]),
        (["--dataset", "mnist"], ["dataset", "mnist"]),
        (["--learning-rate", "1"], ["--learning-rate"]),
        (["--early-stopping-patience", "3", "--val-size", "0"], ["--val-size"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_wrong_setting_is_refused_at_once_with_its_name_value_and_range(
    flags, words, elsewhere, tiny_data_dir, capsys
):
    start = [] if "--recipe" in flags else ["--recipe", "smoke"]
    data = ["--dataset", "synthetic", "--data-dir", str(tiny_data_dir)]
    assert main(["train", *start, *([] if "--dataset" in flags else data), *flags]) == 3
    shown = "".join(capsys.readouterr())
    for word in words:
        assert word in shown
    assert not (elsewhere / "checkpoints").exists()


def test_data_that_cannot_be_had_is_exit_code_2_and_one_message(elsewhere, capsys, monkeypatch):
    monkeypatch.setenv("CIFAR100_DIR", "")
    monkeypatch.setattr(download, "BACKOFF_S", (0.0,))
    url = "http://127.0.0.1:9/cifar-100-python.tar.gz"
    flags = ["--recipe", "smoke", "--dataset", "cifar100", "--data-dir", "nothing"]
    assert main(["train", *flags, "--data-url", url]) == 2
    errors = capsys.readouterr().err
    for words in (url, "nothing", "SHA-256", "--data-url", "--dataset synthetic"):
        assert words in errors
    assert not (elsewhere / "checkpoints").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["evaluate", "--checkpoint-path", "missing.pth"], 4),
        (["predict", "missing.png", "--checkpoint-path", "missing.pth"], 4),
        (["log", "missing"], 4),
        (["train", "--resume"], 4),
        (["info", "resnet9000"], 3),
        (["dance"], 3),
        (["--help"], 0),
        (["train", "--help"], 0),
        (["predict", "--help"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
@pytest.mark.usefixtures("elsewhere")
def test_every_fault_has_its_exit_code_and_words_of_its_own(arguments, code, capsys):
    assert main(arguments) == code
    assert "".join(capsys.readouterr()).strip()


@pytest.mark.parametrize(
    "words",
    [(REPOSITORY / "train.py", "--lr", "-1"), ("-m", "resnet_cifar100", "dance")],
    ids=["train.py", "-m resnet_cifar100"],
)
def test_a_refusal_is_the_exit_code_of_the_process(words, tmp_path):
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 3
    assert words[-1] in done.stderr
    assert "Traceback" not in done.stderr


def test_info_prints_stages_parameters_and_the_two_names(capsys):
    assert main(["info", "resnet44v2"]) == 0
    shown = capsys.readouterr().out
    for words in ("stage 4", "3 x BasicBlockV2", "5,940,356", "441.31 M", "resnet44v2_slim"):
        assert words in shown
    assert main(["info"]) == 0
    assert "2,647,684" in capsys.readouterr().out


def test_a_run_folder_is_never_used_twice(trained, tiny_data_dir, capsys):
    folder, _ = trained
    (run_dir,) = (folder / "checkpoints").glob("*_smoke_*")
    flags = ["--recipe", "smoke", "--dataset", "synthetic", "--data-dir", str(tiny_data_dir)]
    assert main(["train", *flags, "--run-dir", str(run_dir)]) == 3
    assert "--resume" in capsys.readouterr().err


def test_the_log_of_a_published_run_is_rendered_from_its_record(trained, capsys):
    folder, _ = trained
    (run_dir,) = (folder / "checkpoints").glob("*_smoke_*")
    assert main(["record", str(run_dir), "--name", "smoke", "--records", str(folder)]) == 0
    (published,) = folder.glob("*_smoke")
    page = (published / "README.md").read_text()
    assert "![Curves](curves.png)" in page
    capsys.readouterr()
    assert main(["log", str(published)]) == 0
    assert capsys.readouterr().out == page.replace("![Curves](curves.png)\n\n", "")
