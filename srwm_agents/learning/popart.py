"""PopArt: a critic that normalises each game's value by running statistics of that game's targets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srwm_agents.learning.pooling import SINGLE, Pool


class PopArtCritic(nn.Module):
    """A linear value head with one normalised output a game, and the mean and deviation that map it to rewards.

    Source: van Hasselt et al., NeurIPS 2016 (arXiv:1602.07714), algorithm 1 and section 2; for many tasks Hessel et
    al., AAAI 2019 (arXiv:1809.04474): V(x) of game i = sigma_i n_i(x) + mu_i. :meth:`update` moves mu_i and sigma_i
    towards the statistics of the V-trace targets, and rescales weight and bias so that V stays the same. The step size
    is bias-corrected (step / (1 - (1 - step)^k) at a game's k-th minibatch), as the former paper suggests: the first
    minibatch sets the statistics. A game that is not in a minibatch keeps its statistics.

    Deviation: sigma is at least 0.01, not 0.0001. The targets of a game that has not given any reward yet vary by less,
    and that noise should not be scaled up. The optimiser's running means of gradients are not rescaled, as is usual.

    The statistics are buffers, so actors and checkpoints get them with the weights.
    """

    floor, ceiling = 1e-2, 1e6
    """Bounds of sigma."""
    mean: Tensor
    """[games], mu: running mean of the targets."""
    square: Tensor
    """[games], running mean of their squares."""
    seen: Tensor
    """[games], 1 - (1 - step)^k after a game's k-th minibatch: corrects the step size for the start."""

    def __init__(self, input_size: int, num_games: int, step_size: float) -> None:
        """``step_size``: share by which the statistics move to those of a minibatch; 0.0003 in Hessel et al."""
        super().__init__()
        self.step_size = step_size
        self.linear = nn.Linear(input_size, num_games)
        self.register_buffer("mean", torch.zeros(num_games))
        self.register_buffer("square", torch.ones(num_games))
        self.register_buffer("seen", torch.zeros(num_games))

    def forward(self, x: Tensor) -> Tensor:
        """x [N, features] -> [N, games], normalised values."""
        return self.linear(x)

    @property
    def deviation(self) -> Tensor:
        """[games], sigma."""
        return (self.square - self.mean.square()).clamp(self.floor**2, self.ceiling**2).sqrt()

    def values(self, outputs: Tensor, games: Tensor) -> Tensor:
        """Values in units of the reward.

        Args:
            outputs: of :meth:`forward`, for B trajectories of T steps; any shape of B * T * games elements.
            games: int64 [B], the game of each trajectory.

        Returns:
            [B, T], values of each trajectory's own game.
        """
        outputs = outputs.view(len(games), -1, len(self.mean))
        own = outputs.gather(2, games[:, None, None].expand(-1, outputs.shape[1], -1)).squeeze(2)
        return self.deviation[games][:, None] * own + self.mean[games][:, None]

    @torch.no_grad()
    def update(self, targets: Tensor, games: Tensor, valids: Tensor, pool: Pool = SINGLE) -> Tensor:
        """Move the statistics and rescale the linear layer so that no value changes; in place, without a host sync.

        Args:
            targets: [B, T] in units of the reward.
            games: int64 [B].
            valids: bool [B, T], steps that count; targets that are not finite never do.
            pool: learners whose steps make the statistics together.

        Returns:
            the new deviation of each trajectory's game, [B, 1].
        """
        valids = valids & targets.isfinite()  # a NaN would stay in the statistics for good
        counted = torch.where(valids, targets, 0)
        sums = torch.stack([valids.sum(1).to(targets.dtype), counted.sum(1), counted.square().sum(1)])
        count, total, squares = pool.mean(sums.new_zeros(3, len(self.mean)).index_add_(1, games, sums))
        step = torch.where(count > 0, self.step_size, 0.0)
        self.seen.add_(step * (1 - self.seen))
        rate = step / self.seen.clamp(min=self.step_size)
        count = torch.where(count > 0, count, 1.0)
        mean, deviation = self.mean.clone(), self.deviation
        self.mean.add_(rate * (total / count - mean))
        self.square.add_(rate * (squares / count - self.square))
        self.linear.weight.mul_((deviation / self.deviation)[:, None])
        self.linear.bias.copy_((deviation * self.linear.bias + mean - self.mean) / self.deviation)
        return self.deviation[games][:, None]

    def merged(self) -> tuple[Tensor, Tensor]:
        """Weight [1, features] and bias [1] of a linear layer whose output is the mean of all games' values."""
        weight, bias = self.linear.weight.detach(), self.linear.bias.detach()
        return (
            (self.deviation[:, None] * weight).mean(0, keepdim=True),
            (self.deviation * bias + self.mean).mean(0, keepdim=True),
        )
