"""DeltaNet's layer: a slow net programs a fast weight matrix by the delta rule."""

from __future__ import annotations

from torch import Tensor, nn

from srwm_agents.layers.memory import HeadsLayer, LayerState
from srwm_agents.ops.delta import delta_rule


class DeltaLayer(HeadsLayer):
    """H fast weight matrices; queries, keys, values and learning rates come from one linear map of the hidden vector.

    Source: Schlag et al., ICML 2021, section 4.2, with softmax for the feature map of queries and keys, as in
    Irie et al., 2022, section 4.
    """

    state_names = ("W",)

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        *,
        input_norm: bool = False,
        dropout: float = 0.0,
        backend: str = "auto",
    ) -> None:
        """As :class:`srwm_agents.layers.srwm.SRWMLayer`."""
        super().__init__(hidden_size, num_heads, input_norm=input_norm, dropout=dropout)
        dim = self.head_size
        self.backend = backend
        self.slow = nn.Linear(hidden_size, num_heads * (3 * dim + 1), bias=False)
        self.state_shapes = ((num_heads, dim, dim),)

    def choices(self, h: Tensor, state: LayerState, resets: Tensor | None = None) -> dict[str, Tensor]:
        programmed = self.slow(self.norm(h)).unflatten(-1, (self.num_heads, -1))
        q, k, _, beta = programme(programmed[:, 0], self.head_size)
        return {"q": q, "k": k, "b": beta[..., None]}

    def mix(self, h: Tensor, state: LayerState, resets: Tensor | None) -> tuple[Tensor, LayerState]:
        programmed = self.slow(h).unflatten(-1, (self.num_heads, -1))
        y, fast = fast_weights(programmed, state[0], resets, self.backend)
        return y, (fast,)


def fast_weights(programmed: Tensor, fast: Tensor, resets: Tensor | None, backend: str) -> tuple[Tensor, Tensor]:
    """The delta rule on a programmer's output, [B, T, H, 3D + 1] = q, k, v, beta before their nonlinearities."""
    q, k, v, beta = programme(programmed, fast.shape[-1])
    return delta_rule(q, k, v, beta, fast, resets=resets, backend=backend)


def programme(programmed: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """[..., 3D + 1] -> queries, keys and values [..., D] and learning rates [...], in one dtype."""
    q, k, v, beta = programmed.split((dim, dim, dim, 1), dim=-1)
    q, k = q.softmax(-1), k.softmax(-1)
    # Autocast makes softmaxes float32 beside narrower values; the op wants one dtype, and this one loses nothing.
    return q, k, v.to(q.dtype), beta.squeeze(-1).sigmoid().to(q.dtype)
