"""What the benchmarks measure and make of it; how fast anything is belongs to no test."""

import dataclasses
import importlib
import itertools
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize
from torch.testing import assert_close

from benchmarks import (
    images,
    inference,
    measure,
    our_loop,
    page,
    processes,
    scaling,
    step_parts,
    train_step,
)
from benchmarks import plain_loop as plain
from resnet_cifar100.config import Config, ModelConfig
from resnet_cifar100.data.loader import Split, TrainLoader
from resnet_cifar100.engine.schedule import image_size_at
from resnet_cifar100.engine.step import train_step as our_train_step
from resnet_cifar100.models.factory import create_model
from resnet_cifar100.parallel import mean_over_processes, rank
from resnet_cifar100.recipes import create_recipe

pytestmark = pytest.mark.usefixtures("no_compiler")
CPU = torch.device("cpu")
ASKED = page.Asked(
    device="cpu", rounds=2, turn_seconds=0.01, precision="bf16", compile_fault="no compiler"
)


@pytest.fixture
def few_images(monkeypatch, tiny_dataset):
    """Let the benchmarks read 400 images."""
    for module in (images, plain, our_loop, train_step, inference):
        monkeypatch.setattr(module, "training_split", lambda: tiny_dataset.train)
    our_loop.ready_state.cache_clear()
    our_loop.step_block.cache_clear()


def noting(calls, name, seconds):
    def block(pieces):
        calls.append((name, pieces))
        return [seconds]

    return block


def test_variants_take_turns_after_two_rounds_that_are_not_counted():
    calls = []
    blocks = {"a": noting(calls, "a", 0.5), "b": noting(calls, "b", 4.0)}
    turns = measure.take_turns(blocks, rounds=2, turn_seconds=2.0)
    assert calls == [("a", 1), ("b", 1)] * 2 + [("a", 4), ("b", 1)] * 2
    assert turns == {"a": [[0.5], [0.5]], "b": [[4.0], [4.0]]}


def test_the_mean_of_a_turn_is_over_its_pieces():
    assert measure.mean_of_turns({"a": [[1.0, 3.0], [5.0]]}) == {"a": [2.0, 5.0]}


def test_the_seconds_of_a_piece_are_those_of_all_divided_by_their_number(monkeypatch):
    calls, clock = [], iter([10.0, 16.0])
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    assert measure.seconds_per_piece(lambda: calls.append(1), 3, CPU) == 2.0
    assert len(calls) == 3


def test_a_ratio_says_how_many_times_faster_within_each_round():
    assert measure.speed_ratios([1.0, 2.0], to=[3.0, 8.0]) == [3.0, 4.0]
    assert measure.spread([3.0, 1.0, 2.0]) == "2.00 (1.00 to 3.00)"


def test_the_matrix_rate_is_that_of_the_fastest_product(monkeypatch):
    seconds = iter([4.0, 2.0, 8.0])
    monkeypatch.setattr(measure, "seconds_per_piece", lambda *_: next(seconds))
    assert measure.matrix_rate(torch.float32, CPU, size=10, repeats=3) == 2 * 10**3 / 2.0


def views_of_plain_loader(image, count, padding):
    return {plain.crop_and_flip(image, padding).tobytes() for _ in range(count)}


def test_both_loaders_draw_the_same_windows_and_mirror_them(tiny_config):
    pixels = torch.arange(1, 3 * 32 * 32 + 1).remainder(251).to(torch.uint8).view(3, 32, 32)
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    split = Split(pixels.expand(400, 3, 32, 32), torch.zeros(400, dtype=torch.int64))
    config = dataclasses.replace(tiny_config, crop_padding=1, batch_size=400)
    ours, _ = next(TrainLoader(split, config).batches(0))
    ours = {view.permute(1, 2, 0).numpy().tobytes() for view in ours}
    assert len(ours) == 3 * 3 * 2
    assert views_of_plain_loader(image, 400, padding=1) == ours


def test_the_plain_data_set_normalises_and_resizes(tiny_dataset):
    arrays = torch.full((1, 32, 32, 3), 255, dtype=torch.uint8).numpy()
    pixels, label = plain.PlainDataset(arrays, [7], padding=0, image_size=20)[0]
    assert pixels.shape == (3, 20, 20)
    assert label == 7
    assert pixels[0, 0, 0].item() == pytest.approx((1 - 0.5071) / 0.2673)


def test_the_plain_loop_uses_the_convolutions_of_the_library_with_equal_results():
    config = ModelConfig(name="speednet", width=0.25, dropout=0.0, image_size=16)
    ours = create_model(config).train()
    theirs = create_model(config).train()
    theirs.load_state_dict(ours.state_dict())
    theirs = plain.with_library_convolutions(theirs)
    assert {type(m) for m in theirs.modules() if isinstance(m, torch.nn.Conv2d)} == {
        torch.nn.Conv2d
    }
    batch = torch.randn(4, 3, 16, 16)
    assert_close(theirs(batch), ours(batch), rtol=1e-3, atol=1e-3)


def test_the_plain_loop_trains(few_images, monkeypatch):
    monkeypatch.setattr(plain.PlainSettings, "workers", 0)
    settings = plain.PlainSettings(
        model=ModelConfig(name="resnet8x4_s2", image_size=16), batch_size=8, padding=2, device="cpu"
    )
    model = create_model(settings.model)
    monkeypatch.setattr(plain, "create_model", lambda _: model)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    assert plain.training_turn(settings, 1)[0] > 0
    moved = [not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True)]
    assert all(moved)
    assert plain.loading_turn(settings, 2)[0] > 0


def test_the_operations_of_a_step_are_three_passes_of_two_for_each_multiply_add():
    assert our_loop.step_flop(create_recipe("reference"), 32) == 3 * 2 * 441_312_256 * 128


def test_our_step_is_timed_at_the_asked_size_and_only_there(few_images, speedy_config, monkeypatch):
    sizes = []

    def noted(state, batch, labels):
        sizes.append(image_size_at(state.step, state.config, steps_per_epoch=state.steps_per_epoch))
        our_train_step(state, batch, labels)

    monkeypatch.setattr(our_loop, "train_step", noted)
    block = our_loop.step_block(speedy_config, 16)
    (seconds,) = block(12)  # the run has ten steps of this size
    assert seconds > 0
    assert sizes == [16] * 12
    our_loop.step_block(speedy_config, 20)(1)
    assert sizes[12:] == [20]


def test_the_other_layout_is_that_of_weights_and_images(few_images, speedy_config):
    for layout, other in itertools.permutations((torch.channels_last, torch.contiguous_format)):
        state, loader = our_loop.ready_state(speedy_config, layout)
        images, _ = next(loader.batches(0))
        weight = state.model.stages[0].conv1.weight
        for tensor in (weight, state.preprocess(images, 16)):
            assert tensor.is_contiguous(memory_format=layout)
            assert not tensor.is_contiguous(memory_format=other)
    our_loop.step_block(speedy_config, 16, torch.contiguous_format)(1)


def test_a_run_counts_each_image_size_as_often_as_the_schedule_has_it():
    fast = create_recipe("fast")
    steps = our_loop.steps_by_size(fast, 48)
    assert list(steps) == [*fast.early_sizes, fast.image_size]
    assert sorted(step for of_size in steps.values() for step in of_size) == [
        *range(fast.epochs * 48)
    ]


def test_the_share_of_a_run_is_weighted_by_its_steps(few_images, speedy_config):
    # 8 steps an epoch and 3 epochs: 10 steps at 16 pixels, 14 at 20.
    subject = train_step.Subject(speedy_config, ())
    measured = {
        16: [train_step.Variant("plain loop", "fp32", None, [2.0, 4.0, 3.0])],
        20: [train_step.Variant("plain loop", "fp32", None, [5.0])],
    }
    measured[16].append(train_step.Variant("ours", "bf16", None, [1.0]))
    measured[20].append(train_step.Variant("ours", "bf16", None, [2.0]))
    flop = 10 * our_loop.step_flop(speedy_config, 16) + 14 * our_loop.step_flop(speedy_config, 20)
    rates = {"fp32": flop / 50, "bf16": flop / 19}
    rows = train_step.schedule_rows(subject, measured, rates)
    assert rows[0][:3] == ["plain loop", "100.0", "1.00"]
    assert rows[1][:3] == ["ours", "38.0", "2.63"]
    assert [row[-1] for row in rows] == ["50.0%", "50.0%"]


def test_without_a_compiler_the_compiled_variants_are_left_out_with_a_note(
    few_images, speedy_config
):
    subject = train_step.Subject(speedy_config, ("bf16",))
    found = train_step.variants(subject, 16, ASKED, process=None)
    ours = ["ours, eager, fp32", "ours, eager, bf16"]
    ours += [f"{name}, --no-kernels" for name in ours]
    ours.append("ours, eager, bf16, NCHW")
    assert [v.name for v in found] == ["plain loop", *ours]
    for variant in found:
        variant.seconds = [1.0, 2.0]
    rates = {"fp32": 1e12, "bf16": 2e12}
    table = train_step.step_table("speednet", subject, {16: found}, rates, ASKED)
    text = page.render([table])
    assert "no compiler" in text
    assert "| ours, eager, bf16 | 33 | 1.00 (1.00 to 1.00) |" in text
    assert list(inference.predictors(create_recipe("quick"), ASKED)) == [
        "eager, fp32",
        "eager, bf16",
    ]


def test_a_gpu_without_bf16_is_compared_with_the_plain_loop_alone(few_images, speedy_config):
    asked = dataclasses.replace(ASKED, device="cuda", precision="fp32")
    found = train_step.variants(train_step.Subject(speedy_config, ()), 16, asked, process=None)
    assert {variant.precision for variant in found} == {"fp32"}


def test_each_part_of_a_step_does_its_work_and_leads_nowhere(few_images, speedy_config):
    config = dataclasses.replace(speedy_config, augment=("trivial_augment",))
    state, _ = our_loop.ready_state(config)
    before = [p.detach().clone() for p in state.model.parameters()]
    done = {name: piece() for name, piece in step_parts.part_pieces(config, 16).items()}
    assert list(done) == list(step_parts.PARTS)
    assert done["crops"][0].shape == done["augment"].shape == (config.batch_size, 3, 32, 32)
    assert done["preprocess"].shape == (config.batch_size, 3, 16, 16)
    assert all((p.grad is not None) == p.requires_grad for p in state.model.parameters())
    for old, new in zip(before, state.model.parameters(), strict=True):  # Muon rescales filters
        assert_close(normalize(new.flatten(), dim=0), normalize(old.flatten(), dim=0))


def test_the_shares_of_a_step_s_parts_are_of_medians(few_images, speedy_config):
    seconds = step_parts.measure(speedy_config, 16, ASKED)
    assert list(seconds) == ["step", *step_parts.PARTS]
    assert all(len(rounds) == ASKED.rounds and min(rounds) > 0 for rounds in seconds.values())
    seconds = {name: [0.5, 0.1, 0.2] for name in seconds} | {"step": [2.0, 1.0, 0.4]}
    cells = step_parts.row(speedy_config, 16, seconds)
    assert cells[3:] == ["1,000.0", "20.00%", "20.00%", "20.00%", "20.00%", "20.00%"]


def test_every_benchmark_finds_what_it_imports():
    # Not by conftest's REPOSITORY: processes started here import this file, and it unsets ranks.
    paths = sorted(Path(page.__file__).parent.glob("[!_]*.py"))
    assert len(paths) > 20
    for path in paths:
        importlib.import_module(f"benchmarks.{path.stem}")


def test_a_call_is_one_sample_however_fast_calls_are():
    block, most = inference.call_block(lambda: None, CPU), inference.CALLS
    assert [len(block(pieces)) for pieces in (1, 2, 10_000)] == [1, most, most]


def test_thread_counts_double_up_to_all_cores(monkeypatch):
    monkeypatch.setattr(scaling.os, "cpu_count", lambda: 6)
    assert scaling.thread_counts() == [1, 2, 4, 6]


def test_process_counts_double_as_far_as_there_are_cores(monkeypatch):
    for cores, counts in ((1, []), (2, [2]), (6, [2, 4]), (8, [2, 4, 8])):
        monkeypatch.setattr(processes.os, "cpu_count", lambda cores=cores: cores)
        assert processes.process_counts("cpu") == counts


def sum_of_ranks(pieces):
    return [pieces * 2 * float(mean_over_processes(torch.tensor(float(rank()))))]


def test_processes_meet_work_together_and_leave():
    with ExitStack() as stack:
        met = processes.joined_processes(stack, 2, Config(device="cpu", batch_size=4))
        assert processes.joined_block(met, sum_of_ranks)(3) == [3.0]
