"""The public SRWM op: checks its arguments, picks a backend, calls it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from srwm_agents.ops.checks import MEMORY_BACKENDS, check_backend, check_shape, checked_resets
from srwm_agents.ops.compiled.library import use_compiled
from srwm_agents.ops.srwm.naive import read_matrix, srwm_naive
from srwm_agents.ops.srwm.types import Rule, SRWMState, SRWMWeights, zero_state
from srwm_agents.ops.triton_support import check_precision, state_dtype, use_kernels, without_autocast


def srwm(
    x: Tensor,
    weights: SRWMWeights,
    state: SRWMState | None = None,
    *,
    resets: Tensor | None = None,
    decay: float = 1.0,
    unit_keys: bool = False,
    limit: float = 0.0,
    backend: str = "auto",
) -> tuple[Tensor, SRWMState]:
    """Run a self-referential weight matrix over a batch of sequences.

    At step t, for each head, with ``W`` as step t-1 left it (row vectors):

        y = x W_y    q = softmax(x W_q)    k = softmax(x W_k)    b = sigmoid(x W_b)
        for each block c in (y, q, k, beta):    W_c <- W_c + k^T b[c] (q W_c - k W_c)

    Source: Irie et al., ICML 2022, eqs. (5)-(8). Deviations: the state is carried as the *shift* from the slow
    weights, so that zeros mean a fresh episode; the mathematics is the same. With a ``decay`` below 1, which the paper
    does not have, the shift fades: what step t writes is added to ``decay`` times the shift that it found. Without,
    nothing bounds the shift of a long sequence (this folder's README). With ``unit_keys``, which the paper does not
    have either, ``q`` and ``k`` are scaled from sum 1 to Euclidean length 1, as in newer delta-rule networks (Yang et
    al., NeurIPS 2024, arXiv:2406.06484): written with b = 1, ``k`` returns what ``q`` did, and the factor by which an
    update scales what it finds along ``k``, 1 + b (q·k - k·k), cannot exceed 1. With a ``limit``, a third addition,
    each step ends by scaling each block of the shift down to at most ``limit`` times the size of its slow weights
    (Frobenius norms, head by head); a block that is not finite becomes zero. Differentiable in ``x``, ``weights`` and
    ``state``, and through the final state; the gradient takes the factors of a limit for constants. Works under
    ``torch.vmap`` and the transforms of ``torch.func``; second derivatives and forward mode with "naive" only.

    Args:
        x: [B, T, H, D], the heads' inputs, as they are (a softmax over D, if wanted, is the layer's business).
        weights: slow weights, [H, D, O], [H, D, D], [H, D, D], [H, D, 4]; of x's dtype, or float32 beside bfloat16.
        state: shift from the slow weights, each block with a leading B; None starts fresh episodes. Of x's dtype,
            but float32 beside bfloat16; everything is computed in the state's dtype.
        resets: bool [B, T]; True zeroes the state *before* step t, whatever is in it. None: no resets. Of numbers, any
            but 0 is True.
        decay: factor on the state at each step, above 0; 1, the published rule, keeps everything.
        unit_keys: queries and keys of length 1.
        limit: largest size of a block of the state after a step, in units of its slow weights'; 0: no limit.
        backend: "auto" | "naive" | "triton" | "cpu" (compiled C). "auto" picks the fastest that can run; an explicit
            one never falls back.

    Returns:
        y [B, T, H, O] and the state after step T-1. T = 0 returns the state unchanged.

    Raises:
        ValueError: a wrong shape, dtype or device, with what was expected; an unknown backend.
        BackendUnavailableError: the explicitly chosen backend cannot run these arguments here.
    """
    rule = Rule(decay, unit_keys, limit)
    _check(x, weights, state, rule, backend)
    resets = checked_resets(resets, x)
    if use_compiled(backend, x) and x.shape[1] > 0:  # no step, no kernel
        from srwm_agents.ops.srwm.cpu import srwm_cpu

        return srwm_cpu(x, weights, state, resets, rule)
    widths = {"D": x.shape[-1], "O": weights.y.shape[-1]}
    if use_kernels(backend, x, widths=widths) and x.shape[1] > 0:
        from srwm_agents.ops.srwm.autograd import srwm_triton

        return srwm_triton(x, weights, state, resets, rule)
    return _naive(x, weights, state, resets, rule)


def read_step(
    x: Tensor, weights: SRWMWeights, state: SRWMState, *, unit_keys: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What :func:`srwm` reads from its matrices at one step, before it rewrites them: to look at, not to learn from.

    Computed as the naive op does, in the state's dtype; another backend's numbers differ by rounding.

    Args:
        x: [B, H, D].
        weights: as of :func:`srwm`.
        state: the shift that the step begins with, each block with a leading B.
        unit_keys: as of :func:`srwm`.

    Returns:
        y [B, H, O], q and k [B, H, D], and the learning rates b [B, H, 4] of the blocks y, q, k, beta.
    """
    dtype = state.y.dtype
    w = torch.cat([block.to(dtype) for block in weights], dim=-1) + torch.cat(state, dim=-1)
    widths = [block.shape[-1] for block in weights]
    with without_autocast(x):
        parts = read_matrix(x.to(dtype)[..., None, :], w, widths, Rule(unit_keys=unit_keys))
    y, q, k, beta = (part.squeeze(-2) for part in parts)
    return y, q, k, beta


def _naive(
    x: Tensor, weights: SRWMWeights, state: SRWMState | None, resets: Tensor | None, rule: Rule
) -> tuple[Tensor, SRWMState]:
    """In the state's dtype, as the kernels do: float32 for narrow inputs, autocast or not."""
    dtype = state_dtype(x)
    weights = SRWMWeights(*(block.to(dtype) for block in weights))
    if state is None:
        state = zero_state(weights, x.shape[0])
    with without_autocast(x):
        y, final = srwm_naive(x.to(dtype), weights, state, resets, rule)
    return y.to(x.dtype), final


def _check(x: Tensor, weights: SRWMWeights, state: SRWMState | None, rule: Rule, backend: str) -> None:
    check_backend(backend, MEMORY_BACKENDS)
    if not 0 < rule.decay <= 1:
        raise ValueError(f"decay is {rule.decay}, expected 0 < decay <= 1")
    if not 0 <= rule.limit < math.inf:
        raise ValueError(f"limit is {rule.limit}, expected a number at or above 0 (0: no limit)")
    if x.dim() != 4:
        raise ValueError(f"x has shape {list(x.shape)}, expected [B, T, H, D]")
    batch, _, heads, dim = x.shape
    if weights.y.dim() != 3:
        raise ValueError(f"weights.y has shape {list(weights.y.shape)}, expected [H, D, O]")
    out = weights.y.shape[-1]
    for name, block, width, dims in zip(
        SRWMWeights._fields, weights, (out, dim, dim, 4), ("O", "D", "D", "4"), strict=True
    ):
        check_shape(f"weights.{name}", block, (heads, dim, width), f"[H, D, {dims}]")
        check_precision(f"weights.{name}", block, "x", x, narrow=True)
    if state is None:
        return
    for name, shift, block in zip(SRWMState._fields, state, weights, strict=True):
        check_shape(f"state.{name}", shift, (batch, *block.shape), f"[B, *weights.{name}.shape]")
        check_precision(f"state.{name}", shift, "x", x)
