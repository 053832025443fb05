"""The kernels of a training step: their kinds, their number, their time."""

import pytest
import torch

from benchmarks import images, our_loop, page, step_kernels, train_step
from resnet_cifar100.models.factory import create_model


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_nhwckrsc_tilesize64x64", "Convolutions"),
        ("void cudnn::bn_bw_1C11_kernel_new<float, float>(cudnnTensorStruct)", "Norms"),
        ("nvjet_tst_128x64_64x4_2x1_v_bz_TNN", "Matrix products"),
        ("triton_poi_fused__native_batch_norm_silu_3", "Fused by the compiler"),
        ("void at::native::multi_tensor_apply_kernel<TensorListMetadata>", "Lists of tensors"),
        ("Memcpy DtoD (Device -> Device)", "Copies"),
        ("void at::native::vectorized_elementwise_kernel<4, SiluFunctor>", step_kernels.REST),
        ("aten::mkldnn_convolution", "Convolutions"),
        ("resnet_cifar100::winograd_weight_gradient", "Convolutions"),
        ("resnet_cifar100::tiles_weight_gradient", "Convolutions"),
        ("resnet_cifar100::norm_gradients", "Norms"),
        ("GeneratedBackwardFor_resnet_cifar100_normalise_default", "Norms"),
        ("aten::baddbmm", "Matrix products"),
        ("aten::native_batch_norm_backward", "Norms"),
        ("aten::_foreach_add_", "Lists of tensors"),
        ("aten::add_", step_kernels.REST),
    ],
)
def test_the_kind_of_a_kernel_is_told_by_its_name(name, kind):
    assert step_kernels.Kernel(name, 1, 1.0).kind == kind


def test_the_kernels_of_a_step_are_counted_and_timed(tiny_dataset, speedy_config, monkeypatch):
    for module in (images, our_loop):
        monkeypatch.setattr(module, "training_split", lambda: tiny_dataset.train)
    subject = train_step.Subject(speedy_config, ())
    monkeypatch.setattr(step_kernels, "subjects", lambda _asked: {"speednet": subject})
    asked = page.Asked(
        device="cpu",
        rounds=1,
        turn_seconds=0.01,
        precision="fp32",
        compile_fault="no compiler",
        models=("speednet",),
    )
    by_kind, longest = step_kernels.tables(asked)
    assert [row[:2] for row in by_kind.rows] == [["speednet", "16"], ["speednet", "20"]]
    kernels = {kernel["name"]: kernel for kernel in by_kind.samples["speednet, 20 px"]["kernels"]}
    modules = create_model(speedy_config.model_config).modules()
    norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in modules)
    names = ("aten::native_batch_norm_backward", "resnet_cifar100::norm_gradients")
    assert sum(kernels[name]["calls"] for name in names if name in kernels) == norms
    assert all(kernel["ms"] > 0 for kernel in kernels.values())
    cells = dict(zip(by_kind.head, by_kind.rows[1], strict=True))
    of_kinds = [cells[kind].split()[0] for kind in (*step_kernels.KINDS, step_kernels.REST)]
    total = sum(kernel["ms"] for kernel in kernels.values())
    shown = sum(float(ms.replace(",", "")) for ms in of_kinds if ms != "-")
    assert shown == pytest.approx(total, abs=0.05)
    assert [row[2] for row in longest.rows[step_kernels.LONGEST :]] == list(kernels)[:8]
