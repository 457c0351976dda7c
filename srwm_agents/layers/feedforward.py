"""The transformer's feed-forward block."""

from __future__ import annotations

from torch import Tensor, nn


class FeedForwardBlock(nn.Module):
    """Residual, pre-norm: h + W_2 relu(W_1 LN(h)), [..., hidden] -> [..., hidden].

    Source: Vaswani et al., 2017, section 3.3; the norm stands before the block, as in Irie et al., 2022.
    """

    def __init__(self, hidden_size: int, ff_size: int, dropout: float = 0.0) -> None:
        """``ff_size`` is the width of the hidden layer; dropout follows each linear map."""
        super().__init__()
        self.block = nn.Sequential(
            nn.LayerNorm(hidden_size),
            nn.Linear(hidden_size, ff_size),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(ff_size, hidden_size),
            nn.Dropout(dropout),
        )

    def forward(self, h: Tensor) -> Tensor:
        return h + self.block(h)
