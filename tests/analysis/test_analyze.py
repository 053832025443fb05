import base64
import csv
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch
from rich.console import Console

from resnet_cifar100.analysis.analyze import balanced
from resnet_cifar100.analysis.calibration import calibration_error, fit_temperature
from resnet_cifar100.analysis.corruptions import CORRUPTIONS
from resnet_cifar100.bundle import Bundle, load_bundle
from resnet_cifar100.cli import main
from resnet_cifar100.config import Config
from resnet_cifar100.data.cifar100 import Dataset, load_dataset, training_splits
from resnet_cifar100.data.loader import Split
from resnet_cifar100.engine.trainer import fit

TABLES = {"per_class.csv", "per_superclass.csv", "confusion.csv", "predictions.npz"}
PAGES = {"report.md", "report.html", "metrics.json", "figures"}
GALLERIES = {"pairs", "losses", "answers", "gradcam"}
CHARTS = {"curves", "superclasses", "superclass-confusion", "confusion", "confidence", "filters"}
QUICK = ("--no-images", "--corruption-images", "0")


def train(folder: Path, data_dir: Path, **changes: object) -> Path:
    """Train a tiny network on drawn data; return the folder of the run."""
    config = Config(
        recipe="tiny",
        model="resnet8x4_s2",
        image_size=8,
        dropout=0.0,
        dataset="synthetic",
        data_dir=data_dir,
        crop_padding=0,
        flip=False,
        batch_size=50,
        lr=0.02,
        device="cpu",
        precision="fp32",
        checkpoint_path=folder / "best_model.pth",
        log_file=folder / "logs.md",
        **changes,
    )
    fit(config, load_dataset(config), folder / "run", Console(file=io.StringIO()))
    return folder / "run"


def analyze(path: Path, out: Path, *flags: object) -> int:
    """Run the command and return its exit code; what is no clear sentence escapes as it is."""
    return main(["analyze", str(path), "--out", str(out), "--device", "cpu", *map(str, flags)])


class Page(HTMLParser):
    """The tags, each with its attributes, and the text of report.html."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.source = (folder / "report.html").read_text()
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, tag: str, attribute: str) -> list[str]:
        return [attrs[attribute] for name, attrs in self.tags if name == tag and attribute in attrs]


def figures_of(folder: Path, theme: str = "light") -> set[str]:
    return {path.stem.removesuffix(f"-{theme}") for path in folder.glob(f"figures/*-{theme}.png")}


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_data_dir) -> Path:
    return train(tmp_path_factory.mktemp("run"), tiny_data_dir, epochs=6, val_size=100)


@pytest.fixture(scope="module")
def report(run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("report")
    assert analyze(run, out, "--corruption-images", 100) == 0
    return out


@pytest.fixture(scope="module")
def bare_run(tmp_path_factory, tiny_data_dir) -> Path:
    """One epoch, and no image held out."""
    return train(tmp_path_factory.mktemp("bare"), tiny_data_dir, epochs=1)


@pytest.fixture(scope="module")
def bare_report(bare_run, tmp_path_factory) -> Path:
    """Of the file beside the folder of the run, without pictures."""
    out = tmp_path_factory.mktemp("bare_report")
    assert analyze(bare_run.parent / "best_model.pth", out, *QUICK) == 0
    return out


@pytest.fixture(scope="module")
def bundle(run) -> Bundle:
    return load_bundle(run / "best_model.pth")


@pytest.fixture(scope="module")
def dataset(bundle) -> Dataset:
    return load_dataset(bundle.config)


@pytest.fixture(scope="module")
def stored(report) -> dict[str, np.ndarray]:
    with np.load(report / "predictions.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def metrics(report) -> dict:
    return json.loads((report / "metrics.json").read_text())


def test_every_file_is_written(report):
    assert {path.name for path in report.iterdir()} == TABLES | PAGES
    for theme in ("light", "dark"):
        assert figures_of(report, theme) == CHARTS | GALLERIES | {"corruptions"}
    named = re.findall(r'(?:src|srcset)="(.*?)"', (report / "report.md").read_text())
    assert {report / name for name in named} == set(report.glob("figures/*.png"))


def test_the_page_needs_no_other_file(report):
    page = Page(report)
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {"classes", "mistakes", "answers", "corrupted-pictures"} <= ids
    assert {href[1:] for href in page.values("a", "href")} <= ids
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "base", "object"})
    assert not re.search(r"url\(|@import", re.search(r"<style>.*</style>", page.source, re.S)[0])
    for theme, shown in [
        ("light", page.values("img", "src")),
        ("dark", page.values("source", "srcset")),
    ]:
        pictures = [base64.b64decode(uri.removeprefix("data:image/png;base64,")) for uri in shown]
        files = [path.read_bytes() for path in report.glob(f"figures/*-{theme}.png")]
        assert sorted(pictures) == sorted(files)
    assert set(page.values("source", "media")) == {"(prefers-color-scheme: dark)"}
    assert all(page.values("img", "alt"))


def test_the_logits_are_those_of_the_network_on_the_test_images(stored, bundle, dataset):
    assert np.allclose(stored["logits"], bundle.logits(dataset.test.images), atol=1e-5)
    assert np.array_equal(stored["labels"], dataset.test.labels)


def test_the_metrics_follow_from_the_logits_and_most_are_those_of_scikit_learn(
    metrics, stored, dataset
):
    labels, predicted, logits = (stored[name] for name in ("labels", "predicted", "logits"))
    coarse, every = np.array(dataset.fine_to_coarse), range(100)
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        labels, predicted, labels=every, average="macro", zero_division=0
    )
    probs = torch.from_numpy(logits).double().softmax(dim=1)
    hits = torch.from_numpy(predicted == labels)
    expected = {
        "top1": sklearn.metrics.accuracy_score(labels, predicted),
        "top5": sklearn.metrics.top_k_accuracy_score(labels, logits, k=5, labels=every),
        "loss": sklearn.metrics.log_loss(labels, probs, labels=every),
        "superclass_top1": sklearn.metrics.accuracy_score(coarse[labels], coarse[predicted]),
        "macro_precision": precision,
        "macro_recall": recall,
        "macro_f1": f1,
        "calibration_error": calibration_error(torch.from_numpy(stored["confidence"]), hits),
        "calibration_error_as_trained": calibration_error(probs.amax(dim=1), hits),
        "temperature": stored["temperature"],
        "images": 200,
    }
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(float(value), abs=1e-6), name
    assert metrics["top1"] == pytest.approx(metrics["result"]["test/top1"], abs=1e-6)


def test_the_tables_are_those_of_scikit_learn(report, stored, dataset):
    fine = [name.replace("_", " ") for name in dataset.fine_names]
    coarse = [name.replace("_", " ") for name in dataset.coarse_names]
    group = np.array(dataset.fine_to_coarse)
    labels, predicted = stored["labels"], stored["predicted"]
    for file, names, of in [("class", fine, np.arange(100)), ("superclass", coarse, group)]:
        with (report / f"per_{file}.csv").open() as lines:
            rows = list(csv.DictReader(lines))
        assert [row[file] for row in rows] == names
        expected = sklearn.metrics.precision_recall_fscore_support(
            of[labels], of[predicted], labels=range(len(names)), zero_division=0
        )
        for column, values in zip(("precision", "recall", "f1", "images"), expected, strict=True):
            assert np.allclose([float(row[column]) for row in rows], values, rtol=0, atol=1e-6)
    with (report / "confusion.csv").open() as lines:
        (_, *head), *rows = csv.reader(lines)
    assert head == [row[0] for row in rows] == fine
    matrix = sklearn.metrics.confusion_matrix(labels, predicted, labels=range(100))
    assert [[int(count) for count in row[1:]] for row in rows] == matrix.tolist()


def test_the_temperature_is_fitted_on_val_and_never_on_test(metrics, report, bundle, dataset):
    _, val = training_splits(dataset, bundle.config)
    fitted, on_test = (
        fit_temperature(bundle.logits(split.images).clone(), split.labels)
        for split in (val, dataset.test)
    )
    assert metrics["temperature"] == pytest.approx(fitted, rel=1e-4)
    assert metrics["temperature"] != pytest.approx(on_test, rel=0.01)
    assert "100 held-out images" in Page(report).text


def test_the_corrupted_images_are_the_first_of_each_class(metrics, bundle, dataset):
    assert metrics["corrupted_images"] == 100
    chosen = [dataset.test.labels.tolist().index(label) for label in range(100)]
    images, labels = dataset.test.images[chosen], dataset.test.labels[chosen]
    for name, corrupt in CORRUPTIONS.items():
        curve = metrics["corruptions_top1"][name]
        assert set(curve) == {"0", "1", "3", "5"}
        for severity, shown in (("0", images), ("5", corrupt(images, 5))):
            top1 = float((bundle.logits(shown).argmax(dim=1) == labels).double().mean())
            assert curve[severity] == pytest.approx(top1, abs=1e-6)


def test_balanced_takes_as_many_of_each_class():
    labels = torch.tensor([2, 0, 2, 0, 2, 0, 0])
    split = Split(torch.arange(7)[:, None], labels)
    assert balanced(split, 4).images.flatten().tolist() == [1, 3, 0, 2]
    assert balanced(split, 5).labels.tolist() == [0, 0, 2, 2]


def test_synthetic_is_said_wherever_a_figure_stands(report, metrics, stored):
    assert "SYNTHETIC" in (report / "report.md").read_text().splitlines()[0]
    assert Page(report).text.count("SYNTHETIC") >= 3
    assert metrics["dataset"] == stored["dataset"] == "SYNTHETIC"
    for name in ("per_class.csv", "per_superclass.csv"):
        with (report / name).open() as lines:
            assert {row["dataset"] for row in csv.DictReader(lines)} == {"SYNTHETIC"}
    assert "SYNTHETIC" in (report / "confusion.csv").read_text().splitlines()[0]


def test_a_run_of_one_epoch_without_held_out_images_has_a_report(bare_report):
    assert figures_of(bare_report) == figures_of(bare_report, "dark") == CHARTS
    page = Page(bare_report)
    assert {"answers", "corrupted-pictures"}.isdisjoint(page.values("h2", "id"))
    assert "Every epoch" in page.text
    assert "Not calibrated" in page.text
    with np.load(bare_report / "predictions.npz", allow_pickle=False) as file:
        assert file["temperature"] == 1


@pytest.mark.usefixtures("blank_figures")
def test_without_images_no_picture_is_left_either(report, bare_run, tmp_path):
    out = shutil.copytree(report, tmp_path / "out")
    assert analyze(bare_run, out, *QUICK) == 0
    assert figures_of(out) == figures_of(out, "dark") == CHARTS
    assert len(Page(out).values("img", "src")) == len(CHARTS)
    markdown = (out / "report.md").read_text()
    assert not any(f"figures/{name}-" in markdown for name in GALLERIES)


@pytest.mark.usefixtures("blank_figures")
def test_the_val_images_are_those_that_the_run_held_out(run, bundle, dataset, tmp_path):
    assert analyze(run, tmp_path, "--split", "val", *QUICK) == 0
    _, val = training_splits(dataset, bundle.config)
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as file:
        assert np.array_equal(file["labels"], val.labels)
        assert np.allclose(file["logits"], bundle.logits(val.images), atol=1e-5)
    assert json.loads((tmp_path / "metrics.json").read_text())["split"] == "val"
