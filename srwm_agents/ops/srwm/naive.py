"""Reference implementation in plain PyTorch: one step of the self-referential weight matrix after another.

Every faster path is tested against this one. It runs on any device, in float32 or float64 (the latter for
``gradcheck``), and autograd differentiates it in the inputs, the weights, the state, and through the final state.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from srwm_agents.ops.srwm.types import Rule, SRWMState, SRWMWeights


def srwm_naive(
    x: Tensor,
    weights: SRWMWeights,
    state: SRWMState,
    resets: Tensor | None,
    rule: Rule,
) -> tuple[Tensor, SRWMState]:
    """Run the SRWM over time. Shapes as in :func:`srwm_agents.ops.srwm.srwm`, which has checked them.

    Source: Irie, Schlag, Csordás & Schmidhuber, "A Modern Self-Referential Weight Matrix That Learns to Modify
    Itself", ICML 2022, eqs. (5)-(8). The published rule has one formula for the whole matrix; here its four blocks
    stand side by side in one matrix ``w`` [B, H, D, N], N = O + 2D + 4, and ``beta`` is spread over the columns.
    """
    batch, steps = x.shape[:2]
    widths = [block.shape[-1] for block in weights]
    # Expanded once, so that the gradients of all resets meet in one [B, ...] buffer and are summed over B only once.
    slow = torch.cat(weights, dim=-1).expand(batch, -1, -1, -1)
    w = slow + torch.cat(state, dim=-1)
    columns = torch.tensor([c for c, width in enumerate(widths) for _ in range(width)], device=x.device)
    allowed = rule.limit * _sizes(slow, widths) if rule.limit else None

    outputs = []
    for t in range(steps):
        if resets is not None:
            w = torch.where(resets[:, t, None, None, None], slow, w)
        y, q, k, beta = read_matrix(x[:, t, :, None, :], w, widths, rule)
        # The output is read before the update, as in the paper: step t's y does not depend on step t's q, k, beta.
        outputs.append(y.squeeze(-2))
        # W <- W + k^T b (q W - k W); q W - k W is one product.
        written = k.mT @ (beta[..., columns] * ((q - k) @ w))
        w = (w if rule.decay == 1 else torch.lerp(slow, w, rule.decay)) + written
        if allowed is not None:
            factor = _factor(w - slow, allowed, widths)[..., columns]
            # A factor of 0 drops a shift that is not finite; a product with it would not.
            w = torch.where(factor > 0, torch.lerp(slow, w, factor), slow)
    final = (w - slow).split(widths, dim=-1)
    y = torch.stack(outputs, dim=1) if outputs else x.new_zeros(batch, 0, x.shape[2], widths[0])
    return y, SRWMState(*final)


def read_matrix(x: Tensor, w: Tensor, widths: list[int], rule: Rule) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a matrix makes of an input: output, query, key and learning rates, before it is rewritten.

    Args:
        x: [..., 1, D].
        w: [..., D, N], the four blocks side by side.
        widths: of the blocks.
        rule: whether queries and keys have length 1.

    Returns:
        y [..., 1, O], q and k [..., 1, D], beta [..., 1, 4].
    """
    y, q, k, beta = (x @ w).split(widths, dim=-1)
    q, k = q.softmax(-1), k.softmax(-1)
    if rule.unit_keys:
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
    return y, q, k, beta.sigmoid()


@torch.no_grad()
def _sizes(matrix: Tensor, widths: list[int]) -> Tensor:
    """Frobenius norm of each block, [B, H, D, N] -> [B, H, 1, 4]."""
    columns = torch.linalg.vector_norm(matrix, dim=-2, keepdim=True)
    return torch.cat([torch.linalg.vector_norm(c, dim=-1, keepdim=True) for c in columns.split(widths, -1)], dim=-1)


@torch.no_grad()
def _factor(shift: Tensor, allowed: Tensor, widths: list[int]) -> Tensor:
    """What each block of ``shift`` is multiplied by to be no larger than ``allowed``; 0 for one that is not finite."""
    sizes = _sizes(shift, widths)
    factor = (allowed / sizes.clamp(min=torch.finfo(sizes.dtype).tiny)).clamp(max=1)
    return torch.where(sizes.isfinite(), factor, 0)
