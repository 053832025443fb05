import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cifar100.config import Config
from resnet_cifar100.kernels import winograd
from resnet_cifar100.models.convolution import WinogradConv2d, use_winograd
from resnet_cifar100.runtime import create_runtime, winograd_fault
from tests.states import begun

CAN_BUILD = shutil.which("g++") and "avx2" in winograd._processor_flags().split()
needs_kernel = pytest.mark.skipif(not CAN_BUILD, reason="g++ and a processor with AVX2 are needed")
FP32 = Config(device="cpu", precision="fp32")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Forget the kernel of this process, and keep that of the test in a folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    winograd.load_kernel.cache_clear()
    yield tmp_path / "resnet-cifar100"
    winograd.load_kernel.cache_clear()


@pytest.fixture
def compiled(monkeypatch):
    """Return the calls of a compiler."""
    calls = []
    run = subprocess.run

    def counted(command, **options):
        calls.append(command)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    return calls


def check(images, in_channels, out_channels, size, kernel, padding):
    """Compare outputs and gradients with those of the library in float64."""
    torch.manual_seed(0)
    x = torch.randn(images, in_channels, *size, requires_grad=True)
    weight = torch.randn(out_channels, in_channels, kernel, kernel, requires_grad=True)
    outputs = winograd.convolve(x, weight, padding)
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    expected = F.conv2d(x.double(), weight.double(), padding=padding)
    towards = torch.randn_like(outputs)
    ours = torch.autograd.grad(outputs, (x, weight), towards)
    theirs = torch.autograd.grad(expected, (x, weight), towards.double())
    for one, other in zip((outputs, *ours), (expected, *theirs), strict=True):
        assert one.shape == other.shape
        assert (one - other).norm() < 2e-5 * other.norm()


@needs_kernel
@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (3, 0), (2, 0), (2, 1)])
@pytest.mark.parametrize("side", [3, 4, 5, 6, 7, 8, 9, 15])
def test_it_is_a_convolution_with_the_gradients_of_one(side, kernel, padding):
    check(5, 32, 64, (side, side), kernel, padding)


@needs_kernel
@settings(max_examples=30, deadline=None)
@given(
    images=st.integers(1, 70),
    channels=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    size=st.tuples(st.integers(3, 11), st.integers(3, 11)),
    kernel=st.sampled_from([2, 3]),
)
def test_any_number_of_images_and_vectors_and_any_size_will_do(images, channels, size, kernel):
    lanes = winograd.load_kernel().lanes()
    check(images, *(lanes * count for count in channels), size, kernel, kernel - 2)


@needs_kernel
def test_vectors_of_avx512_give_the_same_sums(fresh, monkeypatch):
    monkeypatch.setattr(winograd, "COMPILER", (*winograd.COMPILER, "-D__AVX512F__"))
    assert winograd.load_kernel().lanes() == 16
    check(9, 48, 80, (8, 7), 3, 1)
    check(50, 16, 32, (6, 6), 2, 0)


@needs_kernel
def test_its_errors_are_some_ten_times_those_of_fp32():
    torch.manual_seed(0)
    x, weight = torch.randn(32, 64, 16, 16), torch.randn(64, 64, 3, 3)
    expected = F.conv2d(x.double(), weight.double(), padding=1)
    errors = [
        float((outputs - expected).norm() / expected.norm())
        for outputs in (F.conv2d(x, weight, padding=1), winograd.convolve(x, weight, 1))
    ]
    assert errors[1] < 5e-6
    assert errors[1] < 30 * errors[0]


@needs_kernel
@pytest.mark.parametrize("threads", [2, 3, 20])
@pytest.mark.parametrize("images", [3, 40])
def test_any_number_of_threads_will_do_and_gives_the_same_bits_each_time(threads, images):
    torch.manual_seed(0)
    x, gradient = torch.randn(images, 32, 9, 9), torch.randn(images, 32, 9, 9)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        check(images, 32, 32, (9, 9), 3, 1)
        check(images, 32, 32, (4, 5), 2, 0)
        first, second = (winograd.weight_gradient(x, gradient, 1, 3) for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(first, second)


@needs_kernel
@pytest.mark.parametrize("kernel", [2, 3])
def test_torch_finds_no_fault_in_its_operators(kernel):
    x = torch.randn(4, 16, 8, 8, requires_grad=True)
    weight = torch.randn(32, 16, kernel, kernel, requires_grad=True)
    torch.library.opcheck(winograd.convolve, (x, weight, 1))
    gradient = torch.randn_like(winograd.convolve(x, weight, 1))
    arguments = (x.detach(), gradient.detach(), 1, kernel)
    torch.library.opcheck(winograd.weight_gradient, arguments)


@needs_kernel
@pytest.mark.parametrize(
    ("shape", "filters", "dtype"),
    [
        ((4, 16, 8, 8), (16, 16, 3, 3), torch.double),
        ((4, 16, 8, 8), (16, 16, 3, 3), torch.bfloat16),
        ((4, 16, 8, 8), (16, 32, 3, 3), torch.float),
        ((4, 16, 8, 8), (12, 16, 3, 3), torch.float),
        ((4, 12, 8, 8), (16, 12, 3, 3), torch.float),
        ((4, 16, 8, 8), (16, 16, 5, 5), torch.float),
        ((4, 16, 8, 8), (16, 16, 1, 1), torch.float),
        ((0, 16, 8, 8), (16, 16, 3, 3), torch.float),
    ],
)
def test_what_the_kernel_does_not_take_is_refused_before_memory_is_read(shape, filters, dtype):
    with pytest.raises(ValueError, match=r"do not fit|no kernel"):
        winograd.convolve(torch.randn(shape), torch.randn(filters, dtype=dtype), 1)
    side = shape[-1] + 3 - filters[-1]
    gradient = torch.randn(shape[0], filters[0], side, side, dtype=dtype)
    if filters[1] == shape[1]:
        with pytest.raises(ValueError, match="no kernel"):
            winograd.weight_gradient(torch.randn(shape), gradient, 1, filters[-1])
    with pytest.raises(ValueError, match="do not fit"):
        winograd.weight_gradient(torch.randn(5, 16, 8, 8), torch.randn(5, 16, 7, 7), 1, 3)


@needs_kernel
def test_gradients_that_nobody_asks_for_are_not_computed(monkeypatch):
    x, weight = torch.randn(4, 16, 8, 8), torch.randn(16, 16, 3, 3, requires_grad=True)
    outputs = winograd.convolve(x, weight, 1)
    monkeypatch.setattr(winograd, "convolve", None)
    outputs.sum().backward()
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("side", "kernel", "tile"),
    [
        *((3, 3, 3), (4, 3, 4), (5, 3, 3), (7, 3, 4), (9, 3, 3), (15, 3, 4), (32, 3, 4)),
        *((3, 2, 3), (4, 2, 4), (6, 2, 3), (7, 2, 4)),
    ],
)
def test_tiles_are_those_with_the_fewest_products(side, kernel, tile):
    assert winograd.best_tile(side, side, kernel) == tile


@pytest.mark.parametrize(
    ("shape", "is_faster"),
    [
        ((32, 8, 4, 4), True),
        ((31, 8, 4, 4), False),
        ((8, 8, 8, 8), True),
        ((1000, 8, 2, 2), False),
        ((1000, 8, 3, 3), True),
        ((1000, 8, 1, 32), False),
    ],
)
def test_small_maps_and_small_batches_are_the_library_s(shape, is_faster):
    assert winograd.is_faster(torch.empty(shape), 3, 1) == is_faster
    assert not winograd.is_faster(torch.empty(shape, dtype=torch.bfloat16), 3, 1)
    assert not winograd.is_faster(torch.empty(shape, device="meta"), 3, 1)


def test_a_convolution_is_the_library_s_until_it_is_switched_on_and_in_evaluation(monkeypatch):
    calls = []
    monkeypatch.setattr(winograd, "takes_channels", lambda *channels: channels != (5, 6))
    monkeypatch.setattr(winograd, "convolve", lambda *_: calls.append(1))
    model = torch.nn.ModuleList(
        [WinogradConv2d(16, 32, 3, 1), WinogradConv2d(5, 6, 3, 1), torch.nn.Conv2d(16, 32, 3)]
    )
    inputs = [torch.randn(32, channels, 4, 4) for channels in (16, 5, 16)]

    def calls_of_a_pass():
        calls.clear()
        for module, x in zip(model, inputs, strict=True):
            module(x)
        return len(calls)

    assert calls_of_a_pass() == 0
    use_winograd(model)
    assert calls_of_a_pass() == 1
    model.eval()
    assert calls_of_a_pass() == 0
    assert torch.equal(model[0](inputs[0]), F.conv2d(inputs[0], model[0].weight, padding=1))


@needs_kernel
def test_a_run_trains_with_it_and_its_average_is_the_library_s(tiny_config, tiny_dataset):
    gradients, calls = [], []
    for has_winograd in (True, False):
        config = dataclasses.replace(tiny_config, winograd=has_winograd)
        state, loader = begun(config, tiny_dataset)
        convs = [m for m in state.model.modules() if isinstance(m, WinogradConv2d)]
        assert {m.uses_winograd for m in convs[1:]} == {has_winograd}  # the stem has 3 channels
        assert not any(getattr(m, "uses_winograd", False) for m in state.ema.model.modules())
        images, labels = next(loader.batches(0))
        state.model.train()
        with torch.profiler.profile() as profiler:
            F.cross_entropy(state.forward(state.preprocess(images)), labels).backward()
        calls.append(any("winograd" in event.key for event in profiler.key_averages()))
        gradients.append(torch.cat([p.grad.flatten() for p in state.model.parameters()]))
    assert calls == [True, False]
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()


@needs_kernel
def test_it_is_used_in_fp32_on_a_cpu_unless_it_is_turned_off():
    runtime = create_runtime(FP32)
    assert runtime.has_winograd
    assert "Convolutions by Winograd's algorithm, where it is faster." in runtime.notes
    for settings_ in ({"precision": "bf16"}, {"winograd": False}):
        runtime = create_runtime(dataclasses.replace(FP32, **settings_))
        assert not runtime.has_winograd
        assert not any("Winograd" in note for note in runtime.notes)


def test_without_a_compiler_the_library_convolves_and_a_note_says_so(fresh, monkeypatch):
    monkeypatch.setattr(winograd, "COMPILER", ("no-such-compiler",))
    runtime = create_runtime(FP32)
    assert not runtime.has_winograd
    (note,) = [note for note in runtime.notes if "Convolutions" in note]
    assert "no-such-compiler" in note
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert "no home" in " ".join(create_runtime(FP32).notes)


@needs_kernel
def test_a_processor_without_avx2_is_told_apart(fresh, monkeypatch):
    old = ("g++", "-march=x86-64", *winograd.COMPILER[3:])
    monkeypatch.setattr(winograd, "COMPILER", old)
    assert "the processor has no AVX2" in winograd_fault()
    assert list(fresh.parent.iterdir()) == []


@needs_kernel
def test_it_is_compiled_once_and_anew_where_the_kept_one_is_damaged(
    fresh, compiled, monkeypatch, tmp_path
):
    for _ in range(2):
        winograd.load_kernel.cache_clear()
        winograd.load_kernel()
    assert len(compiled) == 1
    (kept,) = fresh.iterdir()
    damaged = tmp_path / "other" / "resnet-cifar100" / kept.name  # that no process has open
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(kept.read_bytes()[:100])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    winograd.load_kernel.cache_clear()
    assert winograd.load_kernel().lanes() in (8, 16)
    assert len(compiled) == 2
    assert damaged.read_bytes() == kept.read_bytes()


@needs_kernel
def test_where_nothing_can_be_kept_it_works_all_the_same(fresh, compiled):
    fresh.write_text("a file where the folder would be")
    for _ in range(2):
        winograd.load_kernel.cache_clear()
        assert winograd.load_kernel().lanes() in (8, 16)
    assert len(compiled) == 2
