import pytest
import torch
import torch.nn.functional as F

from resnet_cifar100.analysis.gradcam import grad_cam
from resnet_cifar100.config import Config
from tests.bundles import untrained


def images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", ["resnet20", "resnet20v2", "speednet", "resnet44v2"])
def test_every_network_has_heat_maps(name):
    bundle = untrained(Config(model=name))
    classes = torch.tensor([3, 50])
    heat = grad_cam(bundle, images(2), classes)
    assert heat.shape == (2, 32, 32)
    assert heat.min() >= 0
    for most in heat.amax(dim=(1, 2)).tolist():  # 0 where nothing speaks for the class
        assert most == pytest.approx(1) or most == 0
    assert not any(module._forward_hooks for module in bundle.model.modules())
    assert all(parameter.grad is None for parameter in bundle.model.parameters())
    alone = grad_cam(bundle, images(2)[1:], classes[1:])
    assert torch.allclose(alone[0], heat[1], atol=1e-4)


@pytest.mark.parametrize("name", ["resnet20v2", "speednet"])
def test_it_is_the_weighted_sum_of_the_paper(name):
    bundle = untrained(Config(model=name))
    model, picture, label = bundle.model, images(1), 42
    first = model.stem(bundle.preprocess(picture))
    if name == "speednet":
        features = model.stages(F.silu(first)).detach().requires_grad_()
        pooled = features.amax(dim=(2, 3)) + features.mean(dim=(2, 3))
    else:
        features = model.activation(model.norm(model.stages(first))).detach().requires_grad_()
        pooled = features.mean(dim=(2, 3))
    logits = model.forward_head(pooled)
    logits[0, label].backward()
    heat = torch.zeros(features.shape[-2:])
    for channel, gradient in zip(features[0], features.grad[0], strict=True):
        heat += gradient.mean() * channel.detach()
    heat = F.interpolate(heat.clamp(min=0)[None, None], size=(32, 32), mode="bilinear")[0, 0]
    expected = heat / heat.max()
    assert torch.allclose(grad_cam(bundle, picture, torch.tensor([label]))[0], expected, atol=1e-5)
