"""Arguments and results of the SRWM op."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class SRWMWeights(NamedTuple):
    """The slow (trained) weights of H heads: the four blocks of ``W = [W_y | W_q | W_k | W_b]``.

    Row-vector convention: a head computes ``x @ W``.
    """

    y: Tensor
    """[H, D, O]: makes the output."""
    q: Tensor
    """[H, D, D]: makes the query, softmax(x W_q)."""
    k: Tensor
    """[H, D, D]: makes the key, softmax(x W_k)."""
    beta: Tensor
    """[H, D, 4]: makes one learning rate a block, sigmoid(x W_b), in the order y, q, k, beta."""


class SRWMState(NamedTuple):
    """The shift of each block from its slow weights, with a leading batch dimension; all zeros is a fresh episode."""

    y: Tensor
    """[B, H, D, O]."""
    q: Tensor
    """[B, H, D, D]."""
    k: Tensor
    """[B, H, D, D]."""
    beta: Tensor
    """[B, H, D, 4]."""


class Rule(NamedTuple):
    """The settings of the recurrence; the defaults are the published rule."""

    decay: float = 1.0
    unit_keys: bool = False
    limit: float = 0.0


def zero_state(weights: SRWMWeights, batch_size: int) -> SRWMState:
    """The state of ``batch_size`` fresh episodes, in the weights' dtype and on their device."""
    return SRWMState(*(block.new_zeros(batch_size, *block.shape) for block in weights))
