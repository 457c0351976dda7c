"""Fused batch norm, residual, leaky ReLU and max-pooling, for the few-shot encoders."""

from __future__ import annotations

from torch import Tensor, nn

from srwm_agents.ops.norm_pool import norm_pool


class NormPool(nn.BatchNorm2d):
    """Batch norm, a residual, leaky ReLU and 2×2 max-pooling; parameters and buffers are batch norm's."""

    def __init__(self, channels: int, *, slope: float = 0.0, pool: bool = True) -> None:
        """``slope``: of the activation below 0 (0: ReLU, 1: none); ``pool``: whether to max-pool."""
        super().__init__(channels)
        self.slope = slope
        self.pool = pool

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """x and residual [N, C, H, W] -> [N, C, H // 2, W // 2], or the same shape without pooling."""
        mean, var, tracked = self.running_mean, self.running_var, self.num_batches_tracked
        assert mean is not None
        assert var is not None
        assert tracked is not None
        if self.training:
            tracked.add_(1)
        return norm_pool(
            *(x, self.weight, self.bias, mean, var),
            training=self.training,
            residual=residual,
            slope=self.slope,
            pool=self.pool,
            eps=self.eps,
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, slope={self.slope}, pool={self.pool}"
