"""The self-referential weight matrix as a residual layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srwm_agents.layers.memory import HeadsLayer, LayerState, detached_steps, zeroed
from srwm_agents.ops.srwm import SRWMState, SRWMWeights, read_step, srwm


class SRWMLayer(HeadsLayer):
    """H self-referential weight matrices side by side.

    Source: Irie et al., ICML 2022, section 3 and appendix A. The heads' inputs are slices of the hidden vector; with
    ``input_softmax`` (as in the paper's RL agents) each slice goes through a softmax first, without it (few-shot)
    it is used raw. Deviation: the state is back-propagated through the whole sequence unless
    ``detach_state_every_step`` restores the published agents' behaviour.
    """

    state_names = ("y", "q", "k", "b")

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        *,
        head_output_size: int | None = None,
        input_softmax: bool = True,
        input_norm: bool = False,
        beta_mean: float = 0.0,
        beta_bias: float = 0.0,
        query_scale: float = 1.0,
        state_decay: float = 1.0,
        state_limit: float = 0.0,
        unit_keys: bool = False,
        dropout: float = 0.0,
        detach_state_every_step: bool = False,
        backend: str = "auto",
    ) -> None:
        """Make a layer.

        Args:
            hidden_size: width of the residual stream, H·D.
            num_heads: H.
            head_output_size: O, width of each head's output; None for D.
            input_softmax: softmax over each head's D inputs.
            input_norm: layer norm before the heads.
            beta_mean: mean of W_beta's initial entries.
            beta_bias: initial bias of three of the four learning rates, those of the blocks that make queries, keys and
                learning rates; the first of each head's inputs is 1 then, so that all blocks have biases, the others
                of 0 at first. 0 for none, as published. Below 0 a head begins as a memory of values with addresses
                that hardly change, and learns how much of itself to rewrite.
            query_scale: the initial W_q is multiplied by this.
            state_decay: factor on the state at each step; 1 is the published rule.
            state_limit: largest size of a head's shift after a step, in units of its slow weights; 0, as published, for
                none. For agents that play on and on: where a query meets its key more than that meets itself, an update
                multiplies the matrix by more than 1, which a decay need not make up for.
            unit_keys: queries and keys of length 1, not sum 1, as published.
            dropout: on the projected output.
            detach_state_every_step: cut the gradient through the state at every step.
            backend: of :func:`srwm_agents.ops.srwm.srwm`.
        """
        super().__init__(hidden_size, num_heads, input_norm=input_norm, dropout=dropout)
        heads, dim = num_heads, self.head_size
        out = dim if head_output_size is None else head_output_size
        self.input_softmax = input_softmax
        self.biased = beta_bias != 0
        self.state_decay = state_decay
        self.state_limit = state_limit
        self.unit_keys = unit_keys
        self.detach_state_every_step = detach_state_every_step
        self.backend = backend
        std = dim**-0.5
        self.w_y = nn.Parameter(torch.randn(heads, dim, out) * std)
        self.w_q = nn.Parameter(torch.randn(heads, dim, dim) * std * query_scale)
        self.w_k = nn.Parameter(torch.randn(heads, dim, dim) * std)
        self.w_beta = nn.Parameter(torch.randn(heads, dim, 4) * std + beta_mean)
        if self.biased:
            with torch.no_grad():
                for block in self.weights:
                    block[:, 0] = 0
                self.w_beta[:, 0, 1:] = beta_bias
        self.state_shapes = tuple(tuple(block.shape) for block in self.weights)

    @property
    def weights(self) -> SRWMWeights:
        """The slow weights as the op takes them."""
        return SRWMWeights(self.w_y, self.w_q, self.w_k, self.w_beta)

    def mix(self, h: Tensor, state: LayerState, resets: Tensor | None) -> tuple[Tensor, LayerState]:
        if self.detach_state_every_step:
            return detached_steps(self._sequence, h, state, resets)
        return self._sequence(h, state, resets)

    def slow_weights(self) -> dict[str, Tensor]:
        return dict(zip(self.state_names, self.weights, strict=False))

    def choices(self, h: Tensor, state: LayerState, resets: Tensor | None = None) -> dict[str, Tensor]:
        _, q, k, beta = self._read(h, state, resets)
        return {"q": q, "k": k, "b": beta}

    def _read(self, h: Tensor, state: LayerState, resets: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Outputs, queries, keys and learning rates of one step, h [B, 1, hidden]."""
        x = self._inputs(self.norm(h))[:, 0]
        return read_step(x, self.weights, SRWMState(*zeroed(state[:4], resets)), unit_keys=self.unit_keys)

    def _inputs(self, h: Tensor) -> Tensor:
        """The heads' inputs [B, T, H, D]."""
        x = self.heads(h)
        x = x.softmax(-1) if self.input_softmax else x
        return torch.cat([torch.ones_like(x[..., :1]), x[..., 1:]], dim=-1) if self.biased else x

    def _sequence(self, h: Tensor, state: LayerState, resets: Tensor | None) -> tuple[Tensor, LayerState]:
        return srwm(
            self._inputs(h),
            self.weights,
            SRWMState(*state),
            resets=resets,
            decay=self.state_decay,
            unit_keys=self.unit_keys,
            limit=self.state_limit,
            backend=self.backend,
        )
