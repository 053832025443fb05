"""What a teacher adds to the loss, against loops over plain numbers, and runs that have one."""

import copy
import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from resnet_cifar100.bundle import Bundle, load_bundle, save_bundle
from resnet_cifar100.config import Config
from resnet_cifar100.constants import FINE_TO_COARSE
from resnet_cifar100.data.cifar100 import training_splits
from resnet_cifar100.data.loader import TrainLoader
from resnet_cifar100.data.transforms import Preprocess
from resnet_cifar100.engine import distill
from resnet_cifar100.engine.distill import dkd_loss, kd_loss, load_teacher
from resnet_cifar100.engine.state import create_state
from resnet_cifar100.engine.step import train_step, update
from resnet_cifar100.engine.trainer import fit
from resnet_cifar100.errors import CheckpointError, ConfigError
from resnet_cifar100.models.factory import create_model
from resnet_cifar100.runtime import create_runtime
from tests.engine.test_resume import StoppedError, fingerprint, stop_at
from tests.names import COARSE_NAMES, FINE_NAMES

TEMPERATURES = [0.5, 1.0, 4.0]


def log_sum(numbers):
    most = max(numbers)
    return most + math.log(sum(math.exp(number - most) for number in numbers))


def log_shares(numbers):
    return [number - log_sum(numbers) for number in numbers]


def divergence(theirs, ours):
    """KL(theirs || ours) of two lists of log-probabilities."""
    return sum(math.exp(a) * (a - b) for a, b in zip(theirs, ours, strict=True))


def kd_by_hand(logits, taught, temperature):
    parts = [
        divergence(*(log_shares([score / temperature for score in row]) for row in (there, here)))
        for here, there in zip(logits.tolist(), taught.tolist(), strict=True)
    ]
    return temperature**2 * sum(parts) / len(parts)


def decoupled(row, taught, label, temperature):
    """Return TCKD, NCKD and the teacher's probability of the label: equations 1 to 6 of DKD."""
    pairs, others = [], []
    for scores in (taught, row):
        scaled = [score / temperature for score in scores]
        besides = [score for index, score in enumerate(scaled) if index != label]
        everything = log_sum(scaled)
        pairs.append([scaled[label] - everything, log_sum(besides) - everything])
        others.append(log_shares(besides))
    return divergence(*pairs), divergence(*others), math.exp(pairs[0][0])


def dkd_by_hand(logits, taught, labels, temperature):
    rows = zip(logits.tolist(), taught.tolist(), labels.tolist(), strict=True)
    parts = [decoupled(*row, temperature)[:2] for row in rows]
    return temperature**2 * sum(target + 8 * other for target, other in parts) / len(parts)


def draw(count=4, dtype=torch.float64):
    """Return logits, a teacher's logits and labels; the teacher is sure of some of the labels."""
    generator = torch.Generator().manual_seed(count)
    logits, taught = 3 * torch.randn(2, count, 100, generator=generator, dtype=dtype)
    labels = torch.randint(100, (count,), generator=generator)
    taught[torch.arange(count), labels] += torch.arange(count) * 4
    return logits, taught, labels


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_both_losses_are_those_of_loops_over_numbers(temperature):
    logits, taught, labels = draw()
    kd = kd_by_hand(logits, taught, temperature)
    assert kd_loss(logits, taught, temperature).item() == pytest.approx(kd, rel=1e-9)
    dkd = dkd_by_hand(logits, taught, labels, temperature)
    assert dkd_loss(logits, taught, labels, temperature).item() == pytest.approx(dkd, rel=1e-9)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_two_parts_make_up_the_whole_where_the_second_is_weighed_by_doubt(
    temperature, monkeypatch
):
    """KD = TCKD + (1 - p) NCKD, p the teacher's probability of the label: equation 7 of DKD."""
    logits, taught, labels = draw()
    for row, teacher, label in zip(logits, taught, labels, strict=True):
        parts = {}
        for weight in (0.0, 1.0):
            monkeypatch.setattr(distill, "OTHERS_WEIGHT", weight)
            parts[weight] = dkd_loss(row[None], teacher[None], label[None], temperature).item()
        sure = (teacher / temperature).softmax(0)[label].item()
        whole = parts[0.0] + (1 - sure) * (parts[1.0] - parts[0.0])
        assert whole == pytest.approx(kd_loss(row[None], teacher[None], temperature).item())


@pytest.mark.parametrize("loss", ["kd", "dkd"])
def test_nothing_is_left_to_learn_from_equal_answers_whatever_is_added_to_them(loss):
    _, taught, labels = draw()
    offsets = torch.tensor([0.0, 5.0, -30.0, 7.0], dtype=torch.float64)[:, None]
    for logits in (taught, taught + offsets):
        logits = logits.clone().requires_grad_()
        rest = [labels] if loss == "dkd" else []
        value = getattr(distill, f"{loss}_loss")(logits, taught, *rest, 4.0)
        value.backward()
        assert value.item() == pytest.approx(0, abs=1e-9)
        assert logits.grad.abs().max() < 1e-9


def test_a_number_added_to_all_logits_of_an_image_changes_nothing():
    logits, taught, labels = draw()
    ours = torch.tensor([1.0, -8.0, 20.0, 3.0], dtype=torch.float64)[:, None]
    theirs = ours.flip(0) * 2
    moved = logits + ours, taught + theirs
    assert kd_loss(*moved, 4.0).item() == pytest.approx(kd_loss(logits, taught, 4.0).item())
    dkd = dkd_loss(logits, taught, labels, 4.0).item()
    assert dkd_loss(*moved, labels, 4.0).item() == pytest.approx(dkd)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_extreme_logits_give_finite_losses_and_gradients(temperature):
    generator = torch.Generator().manual_seed(0)
    logits, taught = 100.0 - 200.0 * torch.randint(2, (2, 8, 100), generator=generator)
    labels = torch.arange(8)
    for row in range(4):  # sure of the label or of another class, rightly or not
        logits[row], taught[row] = -100.0, -100.0
        logits[row, row + row % 2], taught[row, row + row // 2] = 100.0, 100.0
    logits.requires_grad_()
    kd, dkd = kd_loss(logits, taught, temperature), dkd_loss(logits, taught, labels, temperature)
    assert kd.item() == pytest.approx(kd_by_hand(logits, taught, temperature), rel=1e-4)
    assert dkd.item() == pytest.approx(dkd_by_hand(logits, taught, labels, temperature), rel=1e-4)
    for loss in (kd, dkd):
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0


@pytest.fixture
def teacher_path(tmp_path):
    """The file of an untrained network that takes larger images than the runs here."""
    return save_teacher(tmp_path / "teacher.pth")


def save_teacher(path, title="SYNTHETIC", **settings):
    config = Config(model="resnet8x4_s2", image_size=16, dropout=0.5, **settings)
    torch.manual_seed(7)
    bundle = Bundle(
        model_config=config.model_config,
        model=create_model(config.model_config).eval(),
        preprocess=Preprocess(16),
        fine_names=FINE_NAMES,
        coarse_names=COARSE_NAMES,
        fine_to_coarse=FINE_TO_COARSE,
        provenance={
            "dataset": title,
            "metrics": {},
            "config": config.to_json(),
            "environment": {},
        },
    )
    save_bundle(bundle, path)
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


def begin(config, dataset):
    train, _ = training_splits(dataset, config)
    loader = TrainLoader(train, config)
    runtime = create_runtime(config)
    teacher = load_teacher(config, runtime, dataset.title)
    return create_state(config, runtime, loader, teacher), loader


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
    state, loader = begin(config, tiny_dataset)
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


def test_the_teacher_stays_as_it_was(teacher_path, tiny_config, tiny_dataset):
    config = dataclasses.replace(tiny_config, teacher=teacher_path, sam_rho=0.1)
    state, loader = begin(config, tiny_dataset)
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
    torch.manual_seed(999)
    fit(config, tiny_dataset, tmp_path / "killed", console)
    assert fingerprint(tmp_path / "killed") == fingerprint(tmp_path / "straight")


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
