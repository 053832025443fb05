import shutil

import pytest

from resnet_cifar100.cli import main
from resnet_cifar100.export import files
from tests.processes import run

EXPORT = ("-m", "resnet_cifar100", "export")


@pytest.mark.skipif(not shutil.which("npm"), reason="there is no npm here")
def test_the_command_writes_a_page_that_is_a_static_space(checkpoint, tiny_data_dir, tmp_path):
    words = [*EXPORT, "web", "--checkpoint-path", checkpoint, "--out", "it/index.html"]
    done = run(*words, "--data-dir", tiny_data_dir, cwd=tmp_path)
    if "check the network" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert "it/index.html" in done.stdout
    page = (tmp_path / "it/index.html").read_text()
    assert "SYNTHETIC" in page
    assert str(tiny_data_dir) not in page
    assert "sdk: static" in (tmp_path / "it/README.md").read_text()
    assert {path.name for path in (tmp_path / "it").iterdir()} == {"index.html", "README.md"}


def test_without_npm_it_says_so_at_once(checkpoint, tmp_path):
    words = [*EXPORT, "web", "--checkpoint-path", checkpoint]
    done = run(*words, cwd=tmp_path, PATH=str(tmp_path))
    assert done.returncode == 7
    assert done.stderr.startswith("A web page needs npm")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "exports").exists()


@pytest.mark.parametrize("kind", ["onnx", "safetensors"])
def test_a_file_to_give_away_does_not_tell_where_the_data_lay(
    kind, checkpoint, tiny_data_dir, tmp_path
):
    assert str(tiny_data_dir).encode() in checkpoint.read_bytes()
    out = tmp_path / f"model.{kind}"
    assert main(["export", kind, "--checkpoint-path", f"{checkpoint}", "--out", f"{out}"]) == 0
    assert str(tiny_data_dir).encode() not in out.read_bytes()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["web", "--out", "page.onnx"], "--out must be a file name ending in .html"),
        (["onnx", "--out", "page.html"], "--out must be a file name ending in .onnx"),
        (["web", "--int8"], "--int8 is for onnx"),
    ],
)
def test_flags_that_do_not_fit_are_refused(words, reason, capsys):
    assert main(["export", *words]) == 3
    assert reason in capsys.readouterr().err


def test_a_file_beyond_the_limit_of_difference_does_not_replace_a_good_one(
    checkpoint, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(files, "MOST_DIFFERENCE", -1.0)  # which nothing can keep
    out = tmp_path / "model.onnx"
    out.write_bytes(b"a good one")
    words = ["export", "onnx", "--checkpoint-path", f"{checkpoint}", "--out", f"{out}"]
    assert main(words) == 7
    assert "was not written" in capsys.readouterr().err
    assert out.read_bytes() == b"a good one"
