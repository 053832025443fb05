import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cifar100.analysis.scores import (
    class_scores,
    confused_pairs,
    confusion_matrix,
    likely_label_errors,
    merge_classes,
    risk_coverage,
)


@st.composite
def answers(draw) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Predicted classes, labels and the number of classes, of which some never occur."""
    classes = draw(st.integers(2, 12))
    pairs = st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1))
    predicted, labels = zip(*draw(st.lists(pairs, min_size=1, max_size=80)), strict=True)
    return torch.tensor(predicted), torch.tensor(labels), classes


@settings(deadline=None)
@given(answers())
def test_the_confusion_is_that_of_scikit_learn(answers):
    predicted, labels, classes = answers
    expected = sklearn.metrics.confusion_matrix(labels, predicted, labels=range(classes))
    assert confusion_matrix(predicted, labels, classes).tolist() == expected.tolist()


@settings(deadline=None)
@given(answers())
def test_the_scores_of_classes_are_those_of_scikit_learn(answers):
    predicted, labels, classes = answers
    expected = sklearn.metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=0
    )
    scores = class_scores(confusion_matrix(predicted, labels, classes))
    for ours, theirs in zip(scores, expected, strict=True):
        assert np.allclose(ours, theirs, rtol=0, atol=1e-12)
    assert scores.support.dtype == torch.int64


def test_a_class_never_predicted_or_without_images_scores_0():
    labels, predicted = torch.tensor([0, 0, 1]), torch.tensor([0, 2, 0])
    scores = class_scores(confusion_matrix(predicted, labels, 4))
    assert scores.precision.tolist() == [0.5, 0, 0, 0]
    assert scores.recall.tolist() == [0.5, 0, 0, 0]
    assert scores.f1.tolist() == [0.5, 0, 0, 0]
    assert scores.support.tolist() == [2, 1, 0, 0]


@settings(deadline=None)
@given(answers(), st.lists(st.integers(0, 4), min_size=12, max_size=12))
def test_merged_classes_are_those_of_images_labelled_anew(answers, groups):
    predicted, labels, classes = answers
    groups = groups[:classes]
    coarse = torch.tensor(groups)
    expected = confusion_matrix(coarse[predicted], coarse[labels], max(groups) + 1)
    merged = merge_classes(confusion_matrix(predicted, labels, classes), groups, max(groups) + 1)
    assert merged.tolist() == expected.tolist()
    assert merged.dtype == torch.int64


@settings(deadline=None)
@given(answers(), st.integers(0, 20))
def test_the_most_confused_pairs_are_those_of_a_slow_count(answers, most):
    predicted, labels, classes = answers
    forth = sklearn.metrics.confusion_matrix(labels, predicted, labels=range(classes))
    counts = [
        int(forth[first, second] + forth[second, first])
        for first in range(classes)
        for second in range(first)
    ]
    expected = sorted((count for count in counts if count), reverse=True)[:most]
    pairs = confused_pairs(torch.tensor(forth), most)
    assert [pair.forth + pair.back for pair in pairs] == expected
    assert len({frozenset(pair[:2]) for pair in pairs}) == len(pairs)
    for first, second, there, back in pairs:
        assert first != second
        assert there >= back
        assert (there, back) == (forth[first, second], forth[second, first])


def test_nothing_is_confused_where_all_is_right():
    assert confused_pairs(torch.eye(5, dtype=torch.int64), 3) == []


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1000), st.booleans()), min_size=1, max_size=50))
def test_the_risk_is_the_share_of_errors_among_the_surest(drawn):
    confidence = torch.tensor([sure / 1000 for sure, _ in drawn])
    hits = torch.tensor([is_right for _, is_right in drawn])
    coverage, risk = risk_coverage(confidence, hits)
    surest_first = sorted(drawn, key=lambda one: -one[0])
    for count in range(1, len(drawn) + 1):
        wrong = sum(not is_right for _, is_right in surest_first[:count])
        assert float(coverage[count - 1]) == pytest.approx(count / len(drawn))
        assert float(risk[count - 1]) == pytest.approx(wrong / count)


def label_errors_one_by_one(probs: np.ndarray, labels: np.ndarray) -> list[bool]:
    """Confident learning as the paper puts it, an image at a time, and a sure prediction."""
    threshold = {
        label: sum(map(float, probs[labels == label, label])) / int((labels == label).sum())
        for label in set(labels.tolist())
    }
    marked = []
    for row, label in zip(probs.astype(np.float64), labels.tolist(), strict=True):
        confident = [one for one in threshold if row[one] >= threshold[one]]
        best = max(confident, key=lambda one: row[one], default=label)
        marked.append(best != label and row.argmax() != label and row.max() >= 0.5)
    return marked


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 40), st.sampled_from([0.1, 1, 5]))
def test_the_likely_label_errors_are_those_of_a_slow_loop(seed, classes, images, scale):
    generator = torch.Generator().manual_seed(seed)
    probs = (scale * torch.randn(images, classes, generator=generator)).softmax(dim=1)
    labels = torch.randint(classes, (images,), generator=generator)
    expected = label_errors_one_by_one(probs.numpy(), labels.numpy())
    assert likely_label_errors(probs, labels).tolist() == expected


def test_planted_label_errors_are_found_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(200) % 10
    labels, planted = truth.clone(), torch.randperm(200, generator=generator)[:8]
    labels[planted] = (truth[planted] + 3) % 10
    logits = 6 * torch.eye(10)[truth] + 0.5 * torch.randn(200, 10, generator=generator)
    logits[planted] *= 2  # surer than the average of their true class
    marked = likely_label_errors(logits.softmax(dim=1), labels)
    assert marked.nonzero().flatten().tolist() == sorted(planted.tolist())


def test_a_class_without_images_is_nobodys_true_class():
    probs = torch.tensor([[0.1, 0.9], [0.2, 0.8]])
    assert likely_label_errors(probs, torch.tensor([0, 0])).tolist() == [False, False]
