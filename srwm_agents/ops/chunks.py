"""What the chunked forms of matrix memories share: which step still sees which, by how much it has decayed, and NaN.

Shapes: B episodes, H heads, C steps in the chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

State = TypeVar("State")


def chunk_length(z: Tensor) -> int:
    """Steps in a chunk of a sequence on ``z``'s device: a longer one takes fewer launches and more arithmetic."""
    return 16 if z.device.type == "cpu" else 32


def in_chunks(
    chunk: Callable[..., tuple[Tensor, State]], sequences: Sequence[Tensor], state: State, resets: Tensor | None
) -> tuple[Tensor, State]:
    """Run ``chunk`` over time, chunk by chunk: outputs [B, T, H, width], and the state after the last.

    Args:
        chunk: (*parts of the sequences [B, H, C, ...], state, part of resets [B, C] or None) -> outputs and next state.
        sequences: [B, T, H, ...], T > 0.
        state: before the first step.
        resets: bool [B, T], or None.
    """
    length = chunk_length(sequences[0])
    parts = [z.transpose(1, 2).split(length, 2) for z in sequences]
    cuts = [None] * len(parts[0]) if resets is None else resets.split(length, 1)
    outputs = []
    for *of_chunk, cut in zip(*parts, cuts, strict=True):
        y, state = chunk(*of_chunk, state, cut)
        outputs.append(y)
    return torch.cat(outputs, dim=2).transpose(1, 2), state


class Reach(NamedTuple):
    """What each step t of a chunk sees of steps j <= t and of the state before the chunk."""

    seen: Tensor
    """[B or 1, 1, C, C] bool: j <= t, and no reset after j up to t."""
    carried: Tensor
    """[B or 1, 1, C] bool: no reset up to t, so that the state before the chunk is seen."""
    log_between: Tensor
    """[B, H, C, C]: the sum of log-decays after j up to t; of no meaning where not ``seen``, but finite."""
    log_since: Tensor
    """[B, H, C]: their sum up to t from the chunk's first step or, if it is later, the last reset's."""


def reach(log_decay: Tensor, resets: Tensor | None) -> Reach:
    """Of log-decays [B, H, C] and resets [B, C].

    Sums between two steps are summed up one by one. As differences of sums from the chunk's beginning they would have
    the rounding errors of whatever came before: one strong decay would spoil all that follow.
    """
    index = torch.arange(log_decay.shape[-1], device=log_decay.device)
    causal = (index[:, None] >= index)[None, None]
    log_between = torch.where(index[:, None] > index, log_decay[..., None], 0).cumsum(-2)
    if resets is None:
        return Reach(causal, causal[..., -1, :], log_between, log_decay.cumsum(-1))
    episode = resets.cumsum(-1)[:, None]  # [B, 1, C]: resets so far
    seen = causal & (episode[..., :, None] == episode[..., None, :])
    log_since = torch.where(seen, log_decay[..., None, :], 0).sum(-1)
    return Reach(seen, episode == 0, log_between, log_since)


def finite_part(
    sequences: Sequence[Tensor], state: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    """Put 0 in the place of what is not finite, and tell where that was; :func:`poison` undoes it.

    A product with a matrix of zeros and ones would not drop a NaN of an episode that a reset has ended.

    Args:
        sequences: [B, H, C, width] or, of width 1, [B, H, C].
        state: parts [B, H, ...].

    Returns:
        The sequences, the state's parts, and as bool [B, H, C] and [B, H] in which something was not finite.
    """
    widths = [part.shape[-1] if part.dim() == 4 else 1 for part in sequences]
    joined = torch.cat([part if part.dim() == 4 else part[..., None] for part in sequences], dim=-1)
    clean = joined.nan_to_num(0.0, 0.0, 0.0).split(widths, dim=-1)
    parts = [part if like.dim() == 4 else part.squeeze(-1) for part, like in zip(clean, sequences, strict=True)]
    broken_state = torch.stack([~part.isfinite().flatten(2).all(-1) for part in (_deep(part) for part in state)]).any(0)
    return parts, [part.nan_to_num(0.0, 0.0, 0.0) for part in state], ~joined.isfinite().all(-1), broken_state


def _deep(part: Tensor) -> Tensor:
    return part if part.dim() > 2 else part[..., None]


def poison(broken: Tensor, broken_state: Tensor, now: Reach) -> Tensor:
    """What to add to the outputs, and its last step to the state: NaN at steps that see something broken, else 0.

    ``broken`` [B, H, C] and ``broken_state`` [B, H] as of :func:`finite_part`; returns [B, H, C].
    """
    sees = (broken[..., None, :] & now.seen).any(-1) | (broken_state[..., None] & now.carried)
    return torch.zeros_like(now.log_since).masked_fill(sees, torch.nan)


def inverse_unit_lower(lower: Tensor) -> Tensor:
    """(I + L)^-1 of strictly lower triangular L [..., C, C], by blocks of 1, 2, 4, ...: two products for each size.

    As accurate as forward substitution, in log2(C) steps. The series I - L + L^2 - ... is no choice: its terms grow as
    binomials where keys repeat, and cancel.
    """
    size = lower.shape[-1]
    inverse = torch.eye(size, dtype=lower.dtype, device=lower.device).expand(lower.shape)
    index = torch.arange(size, device=lower.device)
    block = 1
    while block < size:
        # [[A, 0], [B, D]]^-1 = [[A^-1, 0], [-D^-1 B A^-1, D^-1]]; B is where rows are in an odd block, columns in the
        # even one before it.
        rows, columns = index[:, None] // block, index // block
        corner = torch.where((rows % 2 == 1) & (columns == rows - 1), lower, 0)
        inverse = inverse - inverse @ corner @ inverse
        block *= 2
    return inverse
