"""The readable truth of the LSTM and the GRU: one step after another, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def lstm_naive(
    x: Tensor, weight: Tensor, bias: Tensor, h: Tensor, c: Tensor, resets: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes as in :func:`srwm_agents.ops.lstm`, which has checked them."""
    outputs = []
    x = x + bias  # here it is only added to what the state gives: once for all steps
    for t, x_t in enumerate(x.unbind(1)):  # one gradient for all steps: that of x[:, t] fills a tensor of x's size
        if resets is not None:
            # Filled, not multiplied: NaN times zero is NaN.
            h, c = h.masked_fill(resets[:, t, None], 0), c.masked_fill(resets[:, t, None], 0)
        i, f, g, o = torch.addmm(x_t, h, weight.T).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return stacked(outputs, h), h, c


def gru_naive(x: Tensor, weight: Tensor, bias: Tensor, h: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
    """Shapes as in :func:`srwm_agents.ops.gru`, which has checked them."""
    outputs = []
    for t, x_t in enumerate(x.unbind(1)):
        if resets is not None:
            h = h.masked_fill(resets[:, t, None], 0)
        x_r, x_z, x_n = x_t.chunk(3, dim=1)
        h_r, h_z, h_n = functional.linear(h, weight, bias).chunk(3, dim=1)
        r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
        n = (x_n + r * h_n).tanh()
        h = n + z * (h - n)
        outputs.append(h)
    return stacked(outputs, h), h


def stacked(outputs: list[Tensor], like: Tensor) -> Tensor:
    """[B, T, H] of T tensors [B, H], of which there may be none."""
    return torch.stack(outputs, dim=1) if outputs else like.new_zeros(len(like), 0, like.shape[1])
