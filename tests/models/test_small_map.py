import pytest
import torch
import torch.nn.functional as F

from resnet_cifar100.models.small_map import SmallMapConv2d


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7])
def test_it_is_a_convolution_with_the_gradients_of_one(side):
    torch.manual_seed(side)
    conv = SmallMapConv2d(5, 6).double()
    images = torch.randn(4, 5, side, side, dtype=torch.double, requires_grad=True)
    expected = F.conv2d(images, conv.weight, padding=1)
    outputs = conv(images)
    assert torch.allclose(outputs, expected)
    weights = torch.randn_like(expected)
    inputs = (images, conv.weight)
    ours = torch.autograd.grad(outputs, inputs, weights)
    for gradient, other in zip(ours, torch.autograd.grad(expected, inputs, weights), strict=True):
        assert torch.allclose(gradient, other)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_it_bears_bf16(side):
    torch.manual_seed(side)
    conv = SmallMapConv2d(64, 64)
    images = torch.randn(32, 64, side, side).contiguous(memory_format=torch.channels_last)
    inputs = (images.requires_grad_(), conv.weight)
    expected = F.conv2d(*inputs, padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = conv(images)
    assert outputs.dtype == torch.bfloat16
    weights = torch.randn_like(expected)
    ours = torch.autograd.grad(outputs, inputs, weights.bfloat16())
    theirs = torch.autograd.grad(expected, inputs, weights)
    for one, other in zip((outputs, *ours), (expected, *theirs), strict=True):
        assert (one - other).norm() < 0.02 * other.norm()


def test_in_evaluation_it_is_the_convolution_of_the_library():
    conv, images = SmallMapConv2d(5, 6).eval(), torch.randn(4, 5, 3, 3)
    assert torch.equal(conv(images), F.conv2d(images, conv.weight, padding=1))
