"""Sample pictures share a folder with whatever else is there."""

import pytest

from resnet_cifar100.data.samples import write_samples
from resnet_cifar100.errors import CheckpointError, ConfigError


def test_another_call_leaves_its_own_pictures_and_those_of_others(tiny_dataset, tmp_path):
    write_samples(tiny_dataset, tmp_path, per_class=2, seed=0)
    (tmp_path / "mine.png").write_bytes(b"mine")
    write_samples(tiny_dataset, tmp_path, per_class=1, seed=1)
    assert (tmp_path / "mine.png").read_bytes() == b"mine"
    assert len(list(tmp_path.glob("SYNTHETIC_*.png"))) == 100


@pytest.mark.parametrize("head", ["file,note", "name,note", "", "\xff"])
def test_a_table_of_somebody_else_is_not_touched(head, tiny_dataset, tmp_path):
    table = f"{head}\nmine.jpg,holiday\n".encode("latin-1")
    (tmp_path / "index.csv").write_bytes(table)
    (tmp_path / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"index\.csv is not by this command"):
        write_samples(tiny_dataset, tmp_path, per_class=1, seed=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.csv", "mine.jpg"]
    assert (tmp_path / "index.csv").read_bytes() == table


def test_a_table_that_was_changed_removes_nothing_else(tiny_dataset, tmp_path):
    index = write_samples(tiny_dataset, tmp_path, per_class=1, seed=0)
    index.write_text(index.read_text() + "mine.jpg,0,a,b,0,SYNTHETIC\n../other.png,0,a,b,0,x\n,\n")
    (tmp_path / "mine.jpg").write_bytes(b"mine")
    write_samples(tiny_dataset, tmp_path, per_class=1, seed=1)
    assert (tmp_path / "mine.jpg").exists()


def test_a_folder_that_cannot_be_is_refused(tiny_dataset, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_samples(tiny_dataset, tmp_path / "file" / "out", per_class=1, seed=0)
