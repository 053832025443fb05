"""Runs, weights and data that are not what `analyze` hopes for."""

import dataclasses
import html
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from resnet_cifar100.analysis.charts import draw_superclass_matrix
from resnet_cifar100.analysis.findings import Names
from resnet_cifar100.analysis.theme import save_figure
from resnet_cifar100.bundle import Bundle, Calibration, load_bundle, save_bundle
from resnet_cifar100.data.cifar100 import SYNTHETIC_FOLDER
from tests.analysis.test_analyze import QUICK, Page, analyze, figures_of, train

SCRIPT = "<script>alert(1)</script>"
NAMES = (
    SCRIPT,
    "one|two",
    "*three*",
    "**four**",
    "`five`",
    "R&amp;D",
    "[link](http://127.0.0.1/)",
    "![picture](http://127.0.0.1/x.png)",
)
RUN_NAME = "*run* | <script>alert(2)<script>"  # a name of a folder holds no slash


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_data_dir) -> Path:
    """One epoch, and no image held out."""
    return train(tmp_path_factory.mktemp("run"), tiny_data_dir, epochs=1)


@pytest.fixture(scope="module")
def bundle(run) -> Bundle:
    return load_bundle(run / "best_model.pth")


@pytest.fixture(scope="module")
def hostile_report(run, bundle, tmp_path_factory) -> Path:
    """Of a run and of classes that are named to become markup."""
    folder = tmp_path_factory.mktemp("hostile")
    shutil.copytree(run, folder / RUN_NAME)
    fine = (*NAMES, *bundle.fine_names[len(NAMES) :])
    coarse = (*NAMES, *bundle.coarse_names[len(NAMES) :])
    named = dataclasses.replace(bundle, fine_names=fine, coarse_names=coarse)
    save_bundle(named, folder / RUN_NAME / "best_model.pth")
    assert analyze(folder / RUN_NAME, folder / "out", *QUICK) == 0
    return folder / "out"


def test_no_name_becomes_a_script(hostile_report):
    page = Page(hostile_report)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_no_name_becomes_emphasis(hostile_report):
    page = Page(hostile_report)
    assert "em" not in {tag for tag, _ in page.tags}
    assert "<strong>four" not in page.source
    assert "<code>five" not in page.source


def test_no_name_becomes_a_link_or_a_picture(hostile_report):
    page = Page(hostile_report)
    assert all(href.startswith("#") for href in page.values("a", "href"))
    assert all(src.startswith("data:image/png;base64,") for src in page.values("img", "src"))


@pytest.mark.parametrize("name", [*NAMES, RUN_NAME])
def test_a_name_stands_on_the_page_as_it_is(name, hostile_report):
    assert name in Page(hostile_report).text


def test_the_page_is_titled_with_the_name_of_the_run(hostile_report):
    title = re.search(r"<title>(.*?)</title>", Page(hostile_report).source)[1]
    assert html.unescape(title).endswith(f"report of {RUN_NAME}")


@pytest.mark.usefixtures("blank_figures")
def test_what_a_calibration_is_from_never_becomes_markup(bundle, tmp_path):
    hostile = Calibration(temperature=2.0, source=SCRIPT)
    save_bundle(dataclasses.replace(bundle, calibration=hostile), tmp_path / "a.pth")
    assert analyze(tmp_path / "a.pth", tmp_path / "out", *QUICK) == 0
    page = Page(tmp_path / "out")
    assert SCRIPT in page.text
    assert "script" not in {tag for tag, _ in page.tags}


def test_a_name_with_dollar_signs_is_drawn_and_not_set_as_a_formula(tmp_path):
    names = Names(["a", "b"], ["$\\frac$", "$1 or $2"], [0, 1])
    confusion = torch.eye(2, dtype=torch.int64)
    path = tmp_path / "matrix.png"
    save_figure(path, (4, 4), lambda figure: draw_superclass_matrix(figure, confusion, names))
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_run_without_weights_has_a_report_of_its_curves(run, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(run, tmp_path / "mine")
    (folder / "best_model.pth").unlink()
    monkeypatch.chdir(tmp_path)
    assert analyze(folder, Path("out"), "--device", "cpu") == 0
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        *("report.md", "report.html", "metrics.json", "figures")
    }
    assert figures_of(out) == {"curves"}
    ids = Page(out).values("h2", "id")
    assert "training" in ids
    assert {"classes", "mistakes", "confidence"}.isdisjoint(ids)
    measured = json.loads((out / "metrics.json").read_text())
    assert "top1" not in measured
    assert f"{measured['result']['test/top1']:.2%}" in capsys.readouterr().out


def flip_a_byte(run: Path) -> Path:
    path = run / "best_model.pth"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def flip_a_byte_of_a_run(run: Path) -> Path:
    return flip_a_byte(run).parent


def foreign(run: Path) -> Path:
    torch.save({"state_dict": {"fc.weight": torch.zeros(10, 64)}}, run / "resnet18.pth")
    return run / "resnet18.pth"


def text(run: Path) -> Path:
    (run / "notes.pth").write_text("not a network")
    return run / "notes.pth"


def missing(run: Path) -> Path:
    return run / "none.pth"


def empty_folder(run: Path) -> Path:
    (run / "nothing").mkdir()
    return run / "nothing"


def empty_run(run: Path) -> Path:
    """Interrupted before the end of its first epoch."""
    (run / "best_model.pth").unlink()
    for name in ("metrics.jsonl", "metrics.csv", "steps.jsonl"):
        (run / name).write_text("")
    return run


def cut_rows(run: Path) -> Path:
    (run / "metrics.jsonl").write_text('{"epoch": 0}\n')
    return run


def no_environment(run: Path) -> Path:
    (run / "env.json").write_text("[]\n")
    return run


def no_provenance(run: Path) -> Path:
    bundle = load_bundle(run / "best_model.pth")
    save_bundle(dataclasses.replace(bundle, provenance={}), run / "bare.pth")
    return run / "bare.pth"


def two_names(run: Path) -> Path:
    bundle = load_bundle(run / "best_model.pth")
    named = dataclasses.replace(bundle, fine_names=("cat", "dog"), fine_to_coarse=(0, 1))
    save_bundle(named, run / "two.pth")
    return run / "two.pth"


WEIGHTS = [flip_a_byte, flip_a_byte_of_a_run, foreign, text, missing, no_provenance, two_names]
RECORDS = [empty_folder, empty_run, cut_rows, no_environment]


@pytest.mark.parametrize("spoil", [*WEIGHTS, *RECORDS])
def test_what_cannot_be_analysed_is_exit_code_4_and_one_sentence(spoil, run, tmp_path, capsys):
    path = spoil(shutil.copytree(run, tmp_path / "copy"))
    assert analyze(path, tmp_path / "out", *QUICK) == 4
    said = capsys.readouterr().err
    assert path.name in said
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--split", "val"], 3, "--val-size"),
        (["--split", "bogus"], 3, "--split"),
        (["--corruption-images", -1], 3, "--corruption-images"),
        (["--device", "cuda:7"], 3, "cuda:7"),
        (["--data-dir", __file__], 2, Path(__file__).name),
        (["--record", "nowhere"], 4, "nowhere"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_a_wrong_flag_is_named_and_has_its_exit_code(flags, code, words, run, tmp_path, capsys):
    assert analyze(run, tmp_path / "out", *flags) == code
    captured = capsys.readouterr()
    assert words in captured.err + captured.out
    assert "Traceback" not in captured.err
    assert not (tmp_path / "out").exists()


def test_damaged_data_are_exit_code_2(run, tiny_data_dir, tmp_path, capsys):
    data = shutil.copytree(tiny_data_dir, tmp_path / "data")
    (data / SYNTHETIC_FOLDER / "test").write_bytes(b"damaged")
    assert analyze(run, tmp_path / "out", "--data-dir", data) == 2
    assert "is not a CIFAR-100 file" in capsys.readouterr().err


@pytest.mark.parametrize("title", ["CIFAR-100", SCRIPT])
def test_other_data_never_stand_in_for_those_of_the_run(title, bundle, tmp_path, monkeypatch):
    """A run with --dataset auto on CIFAR-100, analysed where there is no CIFAR-100."""
    monkeypatch.delenv("CIFAR100_DIR", raising=False)
    settings = json.loads(bundle.provenance["config"])
    config = json.dumps({**settings, "dataset": "auto", "data_url": "ftp://127.0.0.1/none"})
    provenance = {**bundle.provenance, "dataset": title, "config": config}
    save_bundle(dataclasses.replace(bundle, provenance=provenance), tmp_path / "a.pth")
    assert analyze(tmp_path / "a.pth", tmp_path / "out", *QUICK) == 2
    assert not (tmp_path / "out").exists()
