import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F

from resnet_cifar100.kernels import norm, tiles, winograd
from resnet_cifar100.models.layers import (
    FastBatchNorm2d,
    FastConv2d,
    normalise,
    pool_and_normalise,
    use_kernels,
)
from tests.kernels.machine import needs_kernel
from tests.states import begun


@pytest.fixture(params=["winograd", "tiles"])
def in_bf16(request, monkeypatch):
    """Return the name of the kernel for convolutions in bf16; Winograd's is that for fp32."""
    by_winograd = request.param == "winograd"

    def takes_channels(channels, _, dtype):
        return channels != 5 and (dtype == torch.float32 or by_winograd)

    monkeypatch.setattr(winograd, "takes_channels", takes_channels)
    monkeypatch.setattr(
        tiles, "takes_channels", lambda channels, _: channels != 5 and not by_winograd
    )
    return request.param


@pytest.fixture
def calls(monkeypatch):
    """Return the names of the kernels that were called; none computes anything."""
    made = []
    for kernel in (winograd, tiles):
        name = kernel.__name__.split(".")[-1]
        monkeypatch.setattr(kernel, "convolve", lambda *_, name=name: made.append(name))
    return made


def test_a_convolution_is_the_library_s_until_it_is_switched_on_and_in_evaluation(calls, in_bf16):
    model = torch.nn.ModuleList(
        [FastConv2d(16, 32, 3, 1), FastConv2d(5, 6, 3, 1), torch.nn.Conv2d(16, 32, 3)]
    )
    inputs = [torch.randn(64, channels, 4, 4) for channels in (16, 5, 16)]

    def calls_of_a_pass(dtype):
        calls.clear()
        for module, x in zip(model, inputs, strict=True):
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                module(x.to(dtype))
        return calls

    for dtype, name in ((torch.float32, "winograd"), (torch.bfloat16, in_bf16)):
        fresh = copy.deepcopy(model)
        assert calls_of_a_pass(dtype) == []
        use_kernels(model, dtype)
        assert calls_of_a_pass(dtype) == [name]
        model.eval()
        assert calls_of_a_pass(dtype) == []
        assert torch.equal(model[0](inputs[0]), F.conv2d(inputs[0], model[0].weight, padding=1))
        model = fresh


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("activation", norm.ACTIVATIONS)
def test_a_norm_trains_as_the_library_s_does(activation, dtype):
    torch.manual_seed(0)
    ours = FastBatchNorm2d(32)
    theirs = copy.deepcopy(ours)
    use_kernels(ours, dtype)
    assert ours.uses_kernel
    bound = 1e-5 if dtype == torch.float32 else 2e-2
    for _ in range(3):
        x = torch.randn(8, 32, 5, 5).mul_(2).add_(1).to(dtype)
        one, other = (normalise(layer, x, activation) for layer in (ours, theirs))
        assert one.dtype == other.dtype == dtype
        assert (one - other).norm() <= bound * other.norm()
    for name, buffer in ours.named_buffers():
        assert torch.allclose(buffer, theirs.get_buffer(name), rtol=1e-4, atol=1e-6), name
    ours.eval()
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(normalise(ours, x, activation), normalise(theirs.eval(), x, activation))


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_pooling_before_a_norm_is_the_library_s(dtype):
    torch.manual_seed(0)
    ours = FastBatchNorm2d(32)
    theirs = copy.deepcopy(ours)
    use_kernels(ours, dtype)
    x = torch.randn(8, 32, 7, 6).to(dtype)
    found, gradients = [], []
    for layer in (ours, theirs):
        inputs = x.clone().requires_grad_()
        found.append(pool_and_normalise(layer, inputs, "silu"))
        found[-1].float().square().sum().backward()
        gradients.append(inputs.grad)
    bound = 1e-5 if dtype == torch.float32 else 2e-2
    for one, other in (found, gradients):
        assert (one - other).norm() <= bound * other.norm()


@needs_kernel
def test_a_norm_is_the_library_s_where_the_kernel_does_not_take_it(monkeypatch):
    monkeypatch.setattr(norm, "normalise", None)
    odd, layer = FastBatchNorm2d(20), FastBatchNorm2d(32)
    for one in (odd, layer):
        use_kernels(one, torch.float32)
    assert not odd.uses_kernel
    assert normalise(odd, torch.randn(2, 20, 3, 3), "relu").min() == 0
    assert normalise(layer.double(), torch.randn(2, 32, 3, 3).double(), "relu").min() == 0
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        normalise(layer.float(), torch.randn(1, 32, 1, 1), "relu")
    shared = torch.nn.SyncBatchNorm.convert_sync_batchnorm(layer)
    assert normalise(shared, torch.randn(2, 32, 3, 3), "relu").min() == 0


@needs_kernel
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_trains_with_them_and_its_average_is_the_library_s(
    tiny_config, tiny_dataset, precision
):
    gradients, names = [], []
    for has_kernels in (True, False):
        config = dataclasses.replace(tiny_config, kernels=has_kernels, precision=precision)
        state, loader = begun(config, tiny_dataset)
        switches = ("uses_winograd", "uses_kernel")
        layers = [m for m in state.model.modules() if any(hasattr(m, s) for s in switches)]
        assert any(getattr(m, s, False) for m in layers for s in switches) == has_kernels
        averaged = state.ema.model.modules()
        assert not any(getattr(m, s, False) for m in averaged for s in switches)
        images, labels = next(loader.batches(0))
        state.model.train()
        with torch.profiler.profile() as profiler:
            with state.runtime.autocast():
                logits = state.forward(state.preprocess(images))
            F.cross_entropy(logits.float(), labels).backward()
        keys = [event.key for event in profiler.key_averages()]
        names.append({key.split("::")[1] for key in keys if key.startswith("resnet_cifar100::")})
        gradients.append(torch.cat([p.grad.flatten() for p in state.model.parameters()]))
    own, bound = {"normalise", "norm_gradients"}, 1e-4 if precision == "fp32" else 0.1
    if winograd.takes_channels(16, 16, state.runtime.autocast_dtype):
        own |= {f"winograd_{name}" for name in ("convolve", "input_gradient", "weight_gradient")}
        bound *= 1 if precision == "fp32" else 3
    assert names == [own, set()]
    assert (gradients[0] - gradients[1]).norm() < bound * gradients[1].norm()
