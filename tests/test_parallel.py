"""Several processes that train as one; tests/faults starts them with torchrun too."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from resnet_cifar100.config import Config
from resnet_cifar100.data.loader import Split, TrainLoader
from resnet_cifar100.engine.trainer import fit
from resnet_cifar100.errors import ConfigError
from resnet_cifar100.models.factory import create_model
from resnet_cifar100.parallel import _name_of_this_start, process_group, share_norms
from tests.faults.poison import OtherData
from tests.faults.training import ends_of, last_words, settings, start_together
from tests.interruptions import fingerprint

CPU = torch.device("cpu")


def batches_of(rank: int, world_size: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world_size))
    images = torch.randint(
        0, 256, (50, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return list(TrainLoader(Split(images, torch.arange(50)), Config(batch_size=12)).batches(3))


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_parts_of_all_processes_make_up_the_batch_of_one(world_size, monkeypatch):
    whole = batches_of(0, 1, monkeypatch)
    parts = [batches_of(rank, world_size, monkeypatch) for rank in range(world_size)]
    for (images, labels), *shares in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([images for images, _ in shares]), images)
        assert torch.equal(torch.cat([labels for _, labels in shares]), labels)


@pytest.mark.parametrize("batch_size", [100, 3])
def test_a_batch_that_cannot_be_shared_out_is_refused(batch_size, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="--batch-size must be a multiple of the 3 processes"):
        process_group(CPU, batch_size).__enter__()


def test_processes_find_those_that_live_whatever_dead_ones_have_left(monkeypatch):
    """torchrun keeps one store over its restarts: here a first start of three died in it."""
    place = threading.local()
    monkeypatch.setattr("resnet_cifar100.parallel.rank", lambda: place.rank)
    monkeypatch.setattr("resnet_cifar100.parallel.world_size", lambda: 3)
    store = torch.distributed.HashStore()
    store.set("start", "dead")
    for other in (1, 2):
        store.set(f"dead/{other}", f"dead{other}")
    store.set("dead/dead1", "welcome")

    def join(rank: int) -> str:
        place.rank = rank
        return _name_of_this_start(store)

    with ThreadPoolExecutor(3) as processes:
        names = list(processes.map(join, (2, 1, 0)))
        again = list(processes.map(join, (0, 1, 2)))
    assert len({*names}) == len({*again}) == 1
    assert "dead" not in names
    assert names != again


def test_all_processes_train_with_the_settings_of_the_main_one(tmp_path, tiny_data_dir):
    config = settings(tiny_data_dir, epochs=1)
    assert not any(ends_of(start_together(config, tmp_path / "alike")))
    others = {"lr": 0.5, "epochs": 2, "seed": 7, "dropout": 0.0}
    configs = [config, dataclasses.replace(config, **others)]
    assert not any(ends_of(start_together(configs, tmp_path / "unlike")))
    one, other = (fingerprint(tmp_path / name / "run") for name in ("alike", "unlike"))
    assert one == other


def test_a_process_with_another_data_set_says_so_and_ends_all(tmp_path, tiny_data_dir):
    together = start_together(settings(tiny_data_dir), tmp_path, OtherData())
    assert ends_of(together) == [9, 2]
    assert "trains on SYNTHETIC, this one has CIFAR-100: --data-dir" in last_words(tmp_path, 1)


@pytest.mark.parametrize("name", ["resnet44v2", "resnet20", "speednet"])
def test_shared_norms_leave_none_that_sees_one_process_alone(name):
    config = Config(model=name, dropout=0.0).model_config
    model = create_model(config)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    share_norms(model, torch.device("cuda"))  # torch looks for a GPU only when one is used
    norms = [one for one in model.modules() if isinstance(one, nn.modules.batchnorm._NormBase)]
    assert norms
    assert all(isinstance(one, nn.SyncBatchNorm) for one in norms)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())


def test_norms_cannot_be_shared_without_a_gpu(tiny_config, tiny_dataset, tmp_path, console):
    config = dataclasses.replace(tiny_config, sync_norms=True)
    with pytest.raises(ConfigError, match="--sync-norms must be false without a GPU") as refused:
        fit(config, tiny_dataset, tmp_path / "run", console)
    assert refused.value.exit_code == 3
    assert not (tmp_path / "run").exists()
