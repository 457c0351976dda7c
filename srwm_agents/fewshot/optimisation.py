"""Learning-rate schedules, gradient accumulation and clipping, and an average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from srwm_agents.fewshot.tasks import Episode

SCHEDULES = ("constant", "linear", "cosine", "inverse_sqrt")


def learning_rate_factor(
    schedule: str, step: int, warmup_steps: int, train_steps: int, time_share: float = 0.0
) -> float:
    """Factor of the peak learning rate at update ``step`` (from 0).

    A linear warm-up reaches 1 at step ``warmup_steps - 1``. Then "constant"; "linear" and "cosine" reach 0 after the
    last step; "inverse_sqrt" falls as 1 / sqrt(step) (Vaswani et al., NeurIPS 2017, eq. 3, which the published few-shot
    code uses). Where training time is limited, too, ``time_share`` is the elapsed share: "linear" and "cosine" follow
    whichever of steps and time is nearer to its end.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = max((step - warmup_steps) / max(1, train_steps - warmup_steps), time_share)
    if schedule == "linear":
        return max(0.0, 1 - progress)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    if schedule == "inverse_sqrt":
        return math.sqrt(max(1, warmup_steps) / (step + 1))
    return 1.0


def backward_in_parts(objective: nn.Module, draw: Callable[[], Episode], parts: int) -> Tensor:
    """Gradient accumulation: back-propagate the mean loss of ``parts`` equal parts of a batch.

    Adds to the existing gradients. Under DDP, processes exchange them once, with the last part.

    Returns:
        Detached [2]: loss and accuracy, means over the parts.
    """
    totals = []
    for part in range(parts):
        hold = objective.no_sync if part < parts - 1 and isinstance(objective, DistributedDataParallel) else nullcontext
        with hold():
            loss, accuracy = objective(draw())
            (loss / parts).backward()
        totals.append(torch.stack([loss.detach(), accuracy]))
    return torch.stack(totals).mean(0)


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> None:
    """Clip the norm of all gradients together to ``max_norm``; 0: no clipping. No host sync."""
    if max_norm > 0:
        nn.utils.clip_grad_norm_(list(parameters), max_norm, foreach=True)


class AveragedWeights:
    """An exponential moving average of a model's parameters, with the model's own latest buffers.

    The arithmetic is ``torch.optim.swa_utils``'s. Its class ``AveragedModel`` cannot be captured in a CUDA graph: it
    reads the number of updates so far on the host, or copies it to the device.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start from the current weights; with ``decay`` 0 the average is the model itself."""
        self.decay = decay
        self.source = model
        self.model = model if decay == 0 else copy.deepcopy(model).requires_grad_(False)
        self._move = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(self) -> None:
        """Update the average; to be called after each update of the weights."""
        if self.decay == 0:
            return
        self._move(list(self.model.parameters()), list(self.source.parameters()), 0)
        for mine, theirs in zip(self.model.buffers(), self.source.buffers(), strict=True):
            mine.copy_(theirs)
