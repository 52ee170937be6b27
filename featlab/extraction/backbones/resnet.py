"""Residual networks (He et al., CVPR 2016) without their last linear layer: images in, pooled embeddings out.

Parameters carry torchvision's names and shapes, so that a state dict of its ``resnet18`` (also as SHOT and SFDA-PFT
release it: ``conv1``, ``bn1``, ``layer1`` to ``layer4``) loads as it is once ``fc`` is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from featlab.errors import ConfigError

TAPS = ("maxpool", "layer1", "layer2", "layer3", "layer4")
"""Layers whose channel statistics say something about style: the stem's pooling and the four stages."""

SMALL_WIDTHS = (16, 32, 64, 128)
"""Channels of the four stages of `small_resnet`."""


class BasicBlock(nn.Module):
    """relu(x + F(x)) with F two 3x3 convolutions, each with BatchNorm; x goes through 1x1 where its shape changes."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, width, H / stride, W / stride) of (n, channels, H, W)."""
        inner = self.relu(self.bn1(self.conv1(images)))
        inner = self.bn2(self.conv2(inner))
        shortcut = images if self.downsample is None else self.downsample(images)
        out: Tensor = self.relu(inner + shortcut)
        return out


class ResNet(nn.Module):
    """Stem (convolution of stride 2, max pooling of stride 2), four stages of basic blocks, mean over positions."""

    def __init__(
        self, widths: Sequence[int] = (64, 128, 256, 512), blocks: Sequence[int] = (2, 2, 2, 2), stem: int = 7
    ) -> None:
        super().__init__()
        if len(widths) != 4 or len(blocks) != 4 or min((*widths, *blocks)) < 1:
            raise ConfigError(f"a ResNet has four stages of 1 or more blocks and channels, got {widths} and {blocks}")
        if stem < 1 or stem % 2 == 0:
            raise ConfigError(f"the stem's kernel has an odd side, got {stem}")
        self.dim = widths[3]
        self.conv1 = nn.Conv2d(3, widths[0], stem, stride=2, padding=stem // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(widths[0], widths[0], blocks[0], stride=1)
        self.layer2 = _stage(widths[0], widths[1], blocks[1], stride=2)
        self.layer3 = _stage(widths[1], widths[2], blocks[2], stride=2)
        self.layer4 = _stage(widths[2], widths[3], blocks[3], stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, widths[3]) embeddings of (n, 3, H, W) normalised images, H and W 1 or more."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        pooled: Tensor = x.mean(dim=(2, 3))
        return pooled


def resnet18() -> ResNet:
    """Build the 18-layer net for 224 px: 11,176,512 parameters, D = 512."""
    return ResNet()


def small_resnet(widths: Sequence[int] = SMALL_WIDTHS, blocks: Sequence[int] = (1, 1, 1, 1)) -> ResNet:
    """Build a net that a CPU trains in minutes on 96 px: 5x5 stem, one block a stage; D = the last width."""
    return ResNet(widths, blocks, stem=5)


def _stage(channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [BasicBlock(width, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(channels, width, stride), *rest)
