import pytest
import torch

from resnet_cifar100.data.loader import Split
from resnet_cifar100.engine.evaluate import evaluate
from resnet_cifar100.engine.metrics import EpochLosses
from tests.reference import cross_entropy, top_k_share


def test_evaluate_agrees_with_a_slow_count():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 100, (1203,), generator=generator)
    logits = 2 * torch.randn(1203, 100, generator=generator)
    logits[torch.arange(600), labels[:600]] += 3
    # The "image" of a row carries its index, by which the stand-in for a network finds its logits.
    index = torch.arange(1203)
    images = torch.stack([index // 256, index % 256, index * 0], 1).to(torch.uint8)[..., None, None]

    def predict(batch):
        rows = batch[:, 0, 0, 0].long() * 256 + batch[:, 1, 0, 0].long()
        return logits[rows]

    metrics = evaluate(predict, Split(images, labels))
    assert metrics.top1 == pytest.approx(top_k_share(logits.numpy(), labels.numpy(), 1), abs=1e-6)
    assert metrics.top5 == pytest.approx(top_k_share(logits.numpy(), labels.numpy(), 5), abs=1e-6)
    assert metrics.loss == pytest.approx(cross_entropy(logits.numpy(), labels.numpy()), rel=1e-5)


def test_epoch_losses_keep_each_step_and_count_hits():
    losses = EpochLosses(3, torch.device("cpu"))
    logits = torch.eye(4)
    losses.update(0, torch.tensor(2.5), logits, torch.tensor([0, 1, 0, 0]))
    losses.update(1, torch.tensor(1.5), logits, torch.tensor([0, 1, 2, 3]))
    assert losses.read(0, 2) == [2.5, 1.5]
    assert losses.hits.item() == 6
    losses.reset()
    assert losses.read(0, 3) == [0, 0, 0]
    assert losses.hits.item() == 0
