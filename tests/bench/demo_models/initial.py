"""What the bundled networks are before their training."""

import torch
from torch import nn

from s4s.training.demo_models.network import Block, Residual, Transformer


def begun(network: nn.Module) -> nn.Module:
    """The network with its last layers and those that end its blocks at zero: no block changes anything at first."""
    ends = [network.head, *(block.conv2 for block in network.modules() if isinstance(block, Residual)),
            *(block.modulation for block in network.modules() if isinstance(block, (Block, Transformer)))]
    for layer in ends:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    if isinstance(network, Transformer):
        with torch.no_grad():
            network.position.copy_(waves(network.position.shape[-1]))
    return network


def waves(channels: int) -> torch.Tensor:
    """Sine and cosine position embedding of the 7x7 grid, (1, 49, channels)."""
    angle = torch.arange(7.0)[:, None] * torch.exp(torch.linspace(0, -2.5, channels // 4))
    line = torch.cat([angle.sin(), angle.cos()], dim=1)  # (7, channels / 2)
    grid = torch.cat([line[:, None].expand(7, 7, -1), line[None].expand(7, 7, -1)], dim=-1)
    return grid.reshape(1, 49, channels)
