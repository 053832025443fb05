"""A convolution with a switch that makes it faster in training on a CPU."""

from torch import Tensor, nn

from resnet_cifar100.kernels import winograd


class WinogradConv2d(nn.Conv2d):
    """2x2 or 3x3, stride 1, no bias; the library's, but in training after `use_winograd`."""

    uses_winograd = False

    def __init__(self, in_channels: int, out_channels: int, kernel: int, padding: int) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=padding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) -> (N,K,H',W')."""
        kernel, padding = self.weight.shape[2], int(self.padding[0])
        if self.training and self.uses_winograd and winograd.is_faster(x, kernel, padding):
            return winograd.convolve(x, self.weight, padding)  # type: ignore[no-any-return]
        return super().forward(x)


def use_winograd(model: nn.Module) -> None:
    """Let the convolutions of `model` train with the kernel of `winograd` where it is faster.

    In evaluation they stay the library's: what is measured is the network as others run it.
    """
    for module in model.modules():
        if isinstance(module, WinogradConv2d):
            channels = (module.in_channels, module.out_channels)
            module.uses_winograd = winograd.takes_channels(*channels)
