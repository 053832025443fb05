"""Runs that have a teacher: which files may teach, what each step learns, what is recorded."""

import copy
import dataclasses
import hashlib
import itertools

import pytest
import torch
import torch.nn.functional as F

from resnet_cifar100.bundle import load_bundle, save_bundle
from resnet_cifar100.config import Config
from resnet_cifar100.engine.distill import load_teacher
from resnet_cifar100.engine.step import train_step, update
from resnet_cifar100.engine.trainer import fit
from resnet_cifar100.errors import CheckpointError, ConfigError
from resnet_cifar100.kernels import winograd
from resnet_cifar100.runtime import create_runtime
from tests.bundles import untrained
from tests.engine.test_distill import dkd_by_hand, kd_by_hand
from tests.interruptions import StoppedError, fingerprint, stop_at
from tests.kernels.machine import needs_kernel
from tests.states import begun


@pytest.fixture
def teacher_path(tmp_path):
    """The file of an untrained network that takes larger images than the runs here."""
    return save_teacher(tmp_path / "teacher.pth")


def save_teacher(path, title="SYNTHETIC", **settings):
    config = Config(model="resnet8x4_s2", image_size=16, dropout=0.5, **settings)
    save_bundle(untrained(config, seed=7, title=title), path)
    return path


def load(config):
    return load_teacher(config, create_runtime(config), "SYNTHETIC")


def test_without_the_setting_there_is_no_teacher(tiny_config):
    assert load(tiny_config) is None


def test_distilled_needs_a_teacher(tiny_config):
    with pytest.raises(ConfigError, match="--recipe distilled needs --teacher"):
        load(dataclasses.replace(tiny_config, recipe="distilled"))


def test_a_missing_teacher_is_refused(tiny_config, tmp_path):
    with pytest.raises(CheckpointError, match="nobody"):
        load(dataclasses.replace(tiny_config, teacher=tmp_path / "nobody.pth"))


def test_a_teacher_of_other_data_is_refused(tiny_config, tmp_path):
    path = save_teacher(tmp_path / "teacher.pth", title="CIFAR-100")
    with pytest.raises(ConfigError, match="SYNTHETIC"):
        load(dataclasses.replace(tiny_config, teacher=path))


@pytest.mark.parametrize(("theirs", "ours"), [(0, 100), (100, 200), (0, 0), (200, 200), (300, 100)])
def test_a_teacher_that_has_learned_what_is_held_out_is_refused(
    theirs, ours, tiny_config, tmp_path
):
    path = save_teacher(tmp_path / "teacher.pth", val_size=theirs)
    config = dataclasses.replace(tiny_config, teacher=path, val_size=ours)
    if theirs >= ours:
        assert load(config) is not None
    else:
        with pytest.raises(ConfigError, match=f"--val-size {ours}"):
            load(config)


@pytest.mark.parametrize("augment", [(), ("mixup",)], ids=["labels", "mixed"])
@pytest.mark.parametrize("kind", ["kd", "dkd"])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_loss_is_shared_out_between_labels_and_teacher(
    share, kind, augment, teacher_path, tiny_config, tiny_dataset
):
    config = dataclasses.replace(
        tiny_config,
        dropout=0.0,
        augment=augment,
        teacher=teacher_path,
        distillation=kind,
        distillation_weight=share,
        temperature=2.0,
    )
    state, loader = begun(config, tiny_dataset)
    images, targets = next(loader.batches(0))
    logits = copy.deepcopy(state.model)(state.preprocess(images)).detach()
    taught = load_bundle(teacher_path).logits(images)
    term = kd_by_hand(logits, taught, 2.0)
    if kind == "dkd":
        labels = targets.argmax(1) if augment else targets
        term = dkd_by_hand(logits, taught, labels, 2.0)
    entropy = F.cross_entropy(logits, targets, label_smoothing=0.1).item()
    loss, answers = update(state, images, targets, config.image_size)
    assert loss.item() == pytest.approx((1 - share) * entropy + share * term, rel=1e-4)
    assert torch.equal(answers, logits)


@needs_kernel
def test_the_teacher_answers_with_kernels_what_it_answers_without(
    teacher_path, tiny_config, monkeypatch
):
    calls, convolve = [], winograd.convolve
    monkeypatch.setattr(winograd, "convolve", lambda *args: calls.append(1) or convolve(*args))
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    answers = []
    for has_kernels in (True, False):
        config = dataclasses.replace(tiny_config, teacher=teacher_path, kernels=has_kernels)
        teacher = load(config)
        answers.append(teacher.forward(teacher.preprocess(images)))
        assert bool(calls) == has_kernels
        calls.clear()
    assert torch.allclose(*answers, atol=1e-4)


def test_the_teacher_stays_as_it_was(teacher_path, tiny_config, tiny_dataset):
    config = dataclasses.replace(tiny_config, teacher=teacher_path, sam_rho=0.1)
    state, loader = begun(config, tiny_dataset)
    teacher = state.teacher.forward
    state.model.train()
    for images, labels in itertools.islice(loader.batches(0), 3):
        train_step(state, images, labels)
        assert not any(module.training for module in teacher.modules())
    before = load_bundle(teacher_path).model.state_dict()
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


def test_a_run_with_a_trained_teacher_learns_and_resumes_to_the_same_bits(
    tiny_config, tiny_dataset, tmp_path, console, monkeypatch
):
    path = tmp_path / "elsewhere" / "teacher.pth"
    teaching = dataclasses.replace(tiny_config, epochs=1, checkpoint_path=path)
    fit(teaching, tiny_dataset, tmp_path / "teaching", console)
    config = dataclasses.replace(tiny_config, epochs=2, teacher=path)
    record = fit(config, tiny_dataset, tmp_path / "straight", console)
    first, last = (row["train/loss"] for row in record.history.epochs)
    assert last < first
    config = dataclasses.replace(config, checkpoint_minutes=0)
    with monkeypatch.context() as patch:
        stop_at(patch, 11)
        with pytest.raises(StoppedError):
            fit(config, tiny_dataset, tmp_path / "killed", console)
    other = save_teacher(tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="cannot go on with other settings: teacher"):
        fit(dataclasses.replace(config, teacher=other), tiny_dataset, tmp_path / "killed", console)
    torch.manual_seed(999)
    moved = path.rename(tmp_path / "moved.pth")
    fit(dataclasses.replace(config, teacher=moved), tiny_dataset, tmp_path / "killed", console)
    assert fingerprint(tmp_path / "killed") == fingerprint(tmp_path / "straight")


def test_a_run_names_its_teacher_in_its_record_its_log_and_its_weights(
    tiny_config, tiny_dataset, tmp_path, console
):
    path = tmp_path / "elsewhere" / "teacher.pth"
    teaching = dataclasses.replace(tiny_config, epochs=1, seed=5, checkpoint_path=path)
    taught_by = fit(teaching, tiny_dataset, tmp_path / "teaching", console).result["test/top1"]
    config = dataclasses.replace(tiny_config, epochs=1, teacher=path)
    record = fit(config, tiny_dataset, tmp_path / "run", console)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    teacher = record.environments[0]["teacher"]
    assert teacher.startswith("python train.py --recipe reference ")
    assert "--seed 5 " in teacher
    assert str(tmp_path) not in teacher
    assert teacher.endswith(f": {taught_by:.2%} test top-1, SHA-256 {digest}")
    bundle = load_bundle(config.checkpoint_path)
    assert bundle.provenance["environment"]["teacher"] == teacher
    assert digest in config.log_file.read_text()


def test_a_teacher_that_was_not_finished_has_no_result(
    tiny_config, tiny_dataset, tmp_path, console
):
    path = tmp_path / "teacher.pth"
    teaching = dataclasses.replace(tiny_config, epochs=1, checkpoint_path=path)
    fit(teaching, tiny_dataset, tmp_path / "teaching", console)
    bundle = load_bundle(path)
    del bundle.provenance["metrics"]["chosen_by"]  # as after an epoch of a run that goes on
    assert "test/top1" in bundle.provenance["metrics"]
    save_bundle(bundle, path)
    config = dataclasses.replace(tiny_config, epochs=1, teacher=path)
    record = fit(config, tiny_dataset, tmp_path / "run", console)
    assert ": not finished, SHA-256 " in record.environments[0]["teacher"]


def test_a_run_that_would_overwrite_its_teacher_is_refused(
    teacher_path, tiny_config, tiny_dataset, tmp_path, console
):
    """Resumed, it would learn from itself."""
    before = teacher_path.read_bytes()

    def learn():
        paths = {"teacher": teacher_path, "checkpoint_path": teacher_path}
        config = dataclasses.replace(tiny_config, epochs=1, **paths)
        fit(config, tiny_dataset, tmp_path / "run", console)

    with pytest.raises(ConfigError, match="--teacher"):
        learn()
    assert teacher_path.read_bytes() == before
