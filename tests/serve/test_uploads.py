import os
import shutil
import time

import pytest

from resnet_cifar100.serve import uploads as module
from resnet_cifar100.serve.uploads import Uploads
from tests.serve.test_gate import traversals


@pytest.fixture
def uploads(tmp_path):
    folder = tmp_path / "uploads"
    (folder / "examples").mkdir(parents=True)
    (folder / "examples" / "one.png").write_bytes(b"example")
    (tmp_path / "secret").write_text("canary")
    (folder / "way_out").symlink_to(tmp_path / "secret")
    return Uploads(folder)


@pytest.mark.parametrize("name", ["cat.JPG", "..", "../../x.sh", "a\0b", "x" * 9000, "", "/etc/p"])
def test_a_picture_is_kept_under_a_name_of_our_own(uploads, name):
    path = uploads.add(b"content", name)
    assert path.read_bytes() == b"content"
    assert path.name == ("picture.jpg" if name == "cat.JPG" else "picture.png")
    assert path.parent.parent == uploads.folder
    assert uploads.find(str(path)) == path


def test_only_what_lies_here_is_found(uploads):
    assert uploads.find(str(uploads.folder / "examples" / "one.png"))
    found = [path for path in traversals(uploads.folder) if uploads.find(path.partition("=")[2])]
    assert found == []
    for name in ("", None, 7, [], {}, str(uploads.folder), str(uploads.folder / "way_out")):
        assert uploads.find(name) is None


def test_what_is_old_is_swept_with_its_folder_and_examples_stay(uploads):
    old, new = uploads.add(b"old", "a.png"), uploads.add(b"new", "a.png")
    past = time.time() - module.SECONDS - 1
    for path in (old, uploads.folder / "examples" / "one.png"):
        os.utime(path, (past, past))
    uploads.sweep()
    assert new.exists()
    assert not old.parent.exists()
    assert (uploads.folder / "examples" / "one.png").exists()


def test_more_than_fit_push_the_oldest_out(uploads, monkeypatch):
    monkeypatch.setattr(module, "MOST", 6)
    paths = []
    for age in range(9, 0, -1):
        paths.append(uploads.add(b"x", "a.png"))
        past = time.time() - age
        os.utime(paths[-1], (past, past))
    assert [path.exists() for path in paths] == [False] * 3 + [True] * 6


def test_a_folder_that_the_system_has_cleaned_away_comes_back(uploads):
    shutil.rmtree(uploads.folder)
    uploads.sweep()
    assert uploads.find(str(uploads.add(b"content", "a.png")))
    assert uploads.folder.stat().st_mode & 0o777 == 0o700
