"""The folders that are published, before anything leaves."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from resnet_cifar100.bundle import load_bundle
from resnet_cifar100.cli import main
from resnet_cifar100.data.drawings import write_drawings
from resnet_cifar100.errors import CheckpointError, ExportError
from resnet_cifar100.export.modelcard import has_results, render_eval_results, render_model_card
from resnet_cifar100.export.pretrained import Classifier
from resnet_cifar100.export.release import (
    check_folder,
    is_allowed,
    write_model_folder,
    write_space_folder,
)
from resnet_cifar100.serve.networks import open_network
from resnet_cifar100.serve.predictor import Predictor
from tests.conftest import REPOSITORY
from tests.processes import run, surroundings


@pytest.fixture
def copied(released, tmp_path):
    return Path(shutil.copytree(released.model, tmp_path / "model"))


# The folders are shared by all tests: what runs in one may not write its bytecode there.
NO_TRACES = {"PYTHONDONTWRITEBYTECODE": "1"}


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_has_all_that_the_card_promises(released):
    names = files_of(released.model)
    assert names >= {"README.md", "LICENSE", "config.json", "model.safetensors", "model.onnx"}
    assert names >= {"model-int8.onnx", "model-int8.md", "report/report.html", "manifest.json"}
    assert names >= {"report/figures/superclasses-light.png", "report/figures/curves-dark.png"}
    assert not any(name.endswith((".npz", ".pth")) for name in names)
    assert not any("losses" in name or "gradcam" in name for name in names)  # they show pictures
    card = (released.model / "README.md").read_text()
    for path in re.findall(r"\]\((?!http)([^)]+)\)", card):
        assert path in names
    assert "report" in released.output


def test_every_file_may_leave_and_is_as_the_manifest_says(released):
    for kind, folder in (("model", released.model), ("space", released.space)):
        assert set(check_folder(folder, kind, "hf_secret")) == files_of(folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        assert set(manifest["files"]) == files_of(folder) - {"manifest.json"}


@pytest.mark.parametrize("name", [".env", "state.pt", "report/predictions.npz", "report/a/b.csv"])
def test_a_planted_file_stops_everything(copied, name):
    (copied / name).parent.mkdir(exist_ok=True)
    (copied / name).write_text("SECRET=1")
    with pytest.raises(ExportError, match="is not among the files that may leave"):
        check_folder(copied, "model", None)


def test_a_changed_file_and_a_token_stop_everything(copied):
    (copied / "report/report.md").write_text("hf_secret")
    with pytest.raises(ExportError, match="holds your token"):
        check_folder(copied, "model", "hf_secret")
    with pytest.raises(ExportError, match="is not the file that was written"):
        check_folder(copied, "model", None)


def test_only_what_is_listed_is_allowed():
    assert is_allowed("report/per_class.csv", "model")
    assert is_allowed("resnet_cifar100/models/resnet.py", "model")
    for name in ("resnet_cifar100/engine/trainer.py", "report/x/per_class.csv", "best_model.pth"):
        assert not is_allowed(name, "model")
    assert not is_allowed("model.safetensors", "space")


def test_it_is_loaded_strictly_and_answers_with_the_same_bits(released):
    bundle, network = load_bundle(released.checkpoint), Classifier.from_pretrained(released.model)
    images = torch.randint(0, 256, (9, 3, 32, 32), dtype=torch.uint8)
    assert not network.training
    assert network.names == bundle.fine_names
    with torch.inference_mode():
        assert torch.equal(network(images), bundle.logits(images))


def test_a_damaged_file_is_refused(copied, monkeypatch):
    content = bytearray((copied / "model.safetensors").read_bytes())
    content[-100] ^= 1
    (copied / "model.safetensors").write_bytes(content)
    for keywords in ({}, {"strict": False}):
        with pytest.raises(CheckpointError, match="damaged"):
            Classifier.from_pretrained(copied, **keywords)
    (copied / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        Classifier.from_pretrained(copied)


def test_its_own_sources_are_enough_to_load_it(released, tmp_path):
    """In a process that has this folder's files of the package and no others."""
    script = """
import sys, torch
from resnet_cifar100.export.pretrained import Classifier
network = Classifier.from_pretrained(sys.argv[1])
print(sys.modules["resnet_cifar100"].__file__, network(torch.zeros(1, 3, 32, 32).byte()).shape)
print([name for name in sys.modules if "engine" in name and "resnet_cifar100" in name])
"""
    model = str(released.model)
    done = run("-c", script, model, cwd=tmp_path, PYTHONPATH=model, **NO_TRACES)
    assert done.returncode == 0, done.stderr
    assert str(released.model) in done.stdout
    assert "[1, 100]" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_nothing_says_where_the_files_of_this_machine_lie(released, tiny_data_dir):
    for folder in (released.model, released.space):
        for name in files_of(folder):
            content = (folder / name).read_bytes()
            for place in (tiny_data_dir, released.checkpoint.parent, REPOSITORY):
                assert str(place).encode() not in content, name


def test_figures_of_drawn_pictures_are_not_given_as_results(released):
    card = ModelCard.load(released.model / "README.md")
    assert card.data.eval_results is None
    assert card.data.datasets is None
    assert "SYNTHETIC" in card.text
    assert not (released.model / ".eval_results").exists()


def test_the_card_of_a_real_network_gives_its_results(tmp_path):
    bundle = load_bundle(REPOSITORY / "weights/fast.safetensors")
    (tmp_path / "README.md").write_text(
        render_model_card(bundle, "tester/fast", tmp_path, None, ["- `model.onnx`: it"])
    )
    card = ModelCard.load(tmp_path / "README.md")
    top1, top5 = card.data.eval_results
    assert (top1.dataset_type, top1.dataset_split) == ("uoft-cs/cifar100", "test")
    assert (top1.metric_value, top5.metric_value) == (75.91, 93.97)
    assert card.data.model_name == "fast"
    assert "One run, seed 0" in card.text
    (entry,) = yaml.safe_load(render_eval_results(bundle, None))
    assert entry["value"] == 75.91
    assert entry["dataset"]["id"] == "uoft-cs/cifar100"


def test_a_folder_with_something_else_in_it_is_left_alone(checkpoint, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match=r"holds thesis\.txt, which no export wrote"):
        write_model_folder(tmp_path, "tester/net", checkpoint, None, None, print)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_space_pins_what_the_project_pins():
    lines = (REPOSITORY / "huggingface_app/requirements.txt").read_text().split()
    assert set(lines) <= set((REPOSITORY / "requirements.txt").read_text().split())
    card = ModelCard.load(REPOSITORY / "huggingface_app/README.md")
    assert f"gradio=={card.data.sdk_version}" in lines
    assert not any("torch" in line for line in lines)


def test_the_space_answers_without_torch(released, tmp_path):
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in ("torch", "matplotlib", "safetensors", "onnx", "markdown_it"):
        (blocked / f"{name}.py").write_text("raise ModuleNotFoundError('not on the Space')")
    (picture,) = [path for path in write_drawings(tmp_path) if "orange" in path.name]
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", "0"],
        cwd=released.space,
        env=surroundings(**NO_TRACES, PYTHONPATH=str(blocked), SYSTEM="spaces"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        said = process.stdout.readline()
        url = re.search(r"http://[\d.]+:\d+", said)
        assert url, said
        answer = httpx.post(f"{url[0]}/classify", content=picture.read_bytes(), timeout=60).json()
        assert httpx.get(f"{url[0]}/", timeout=60).status_code == 200
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()
    expected = Predictor(open_network(released.checkpoint)).classify(picture)
    assert answer["class"] == expected.classes[0].name
    assert answer["probability"] == pytest.approx(expected.classes[0].prob, abs=1e-3)


def test_settings_keep_only_the_names_of_absolute_paths():
    from resnet_cifar100.config import Config

    config = Config(data_dir=Path("/home/someone/data"), log_file=Path("logs/a.md"))
    assert config.without_folders().data_dir == Path("data")
    assert config.without_folders().log_file == Path("logs/a.md")
    assert np.isclose(config.without_folders().lr, config.lr)


def test_evaluate_takes_the_onnx_files_too(released, tiny_data_dir, capsys):
    figures = []
    for path in (released.checkpoint, released.model / "model.onnx"):
        words = ["evaluate", "--checkpoint-path", str(path), "--data-dir", str(tiny_data_dir)]
        assert main(words) == 0
        shown = capsys.readouterr().out
        figures.append(re.findall(r"[\d.]+%", shown))
    assert figures[0] == figures[1]
    assert "the loss is theirs" in shown


def test_what_a_killed_export_and_a_running_space_leave_is_no_obstacle(released, tmp_path):
    space = Path(shutil.copytree(released.space, tmp_path / "space"))
    (tmp_path / ".space.new").mkdir()
    (tmp_path / ".space.new/.model.onnx.1.tmp").write_text("half")
    (space / "resnet_cifar100/__pycache__").mkdir()
    (space / "resnet_cifar100/__pycache__/config.pyc").write_text("")
    write_space_folder(space, "tester/net", released.model)
    assert files_of(space) == files_of(released.space)
    assert not (tmp_path / ".space.new").exists()


def test_a_folder_that_only_looks_like_an_export_is_left_alone(checkpoint, tmp_path):
    for name in ("README.md", "config.json", "model.safetensors"):
        (tmp_path / name).write_text("my own")
    with pytest.raises(ExportError, match="which no export wrote"):
        write_model_folder(tmp_path, "tester/net", checkpoint, None, None, print)
    assert (tmp_path / "model.safetensors").read_text() == "my own"


def test_an_unfinished_run_has_no_results(tmp_path):
    bundle = load_bundle(REPOSITORY / "weights/fast.safetensors")
    metrics = {"test/top1": 0.99, "test/top5": 0.99, "epoch": 3}
    bundle = dataclasses.replace(bundle, provenance={**bundle.provenance, "metrics": metrics})
    (tmp_path / "README.md").write_text(
        render_model_card(bundle, "tester/fast", tmp_path, None, [])
    )
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.eval_results is None
    assert "This run was not finished" in card.text
    assert "99" not in card.text
    assert not has_results(bundle)


def test_addresses_and_commands_lose_passwords_and_folders():
    from resnet_cifar100.config import Config
    from resnet_cifar100.runtime import _without_folder

    config = Config(data_url="https://me:secret@mirror.example/cifar.tar.gz")
    assert config.without_folders().data_url == "https://mirror.example/cifar.tar.gz"
    config = Config(data_url="https://bucket.example/cifar.tar.gz?Signature=secret//")
    assert config.without_folders().data_url == "https://bucket.example/cifar.tar.gz"
    assert _without_folder("--out=/home/me/x.onnx") == "--out=x.onnx"
    assert _without_folder("/home/me/x.onnx") == "x.onnx"
    assert _without_folder("/home/me/lr=0.1/x.onnx") == "x.onnx"
    assert _without_folder("--run-dir=/home/me/lr=0.1") == "--run-dir=lr=0.1"
    assert _without_folder("--lr=0.1") == "--lr=0.1"
    address = "--data-url=https://me:se@cret@a.example/b?x=1"
    assert _without_folder(address) == "--data-url=https://a.example/b"
    assert _without_folder("--data-url=https://me:secret@a.example/b") == (
        "--data-url=https://a.example/b"
    )
