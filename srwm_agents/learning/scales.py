"""Running statistics a game, by which rewards and advantages are scaled to comparable sizes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from srwm_agents.learning.pooling import SINGLE, Pool


class GameScales:
    """A running root mean square of each game's advantages.

    With many games in one batch, those with frequent rewards have advantages many times larger than those where a
    reward is rare, and the shared network learns little of the latter. Divided by its own running size, each game's
    advantages have the same weight; the squared value error is divided by it too (once), so that its gradient is of
    order one for every game. A simple relative of PopArt (Hessel et al., AAAI 2019, arXiv:1809.04474), without its
    rescaling of the value head.
    """

    decay = 0.99
    floor = 1e-2

    def __init__(self, num_games: int, device: torch.device) -> None:
        self.mean_square = torch.zeros(num_games, device=device)
        self.weight = torch.zeros(num_games, device=device)

    def load(self, mean_square: Tensor, weight: Tensor) -> None:
        """Restore the statistics of a checkpoint."""
        self.mean_square.copy_(mean_square)
        self.weight.copy_(weight)

    def update(self, games: Tensor, advantages: Tensor, valids: Tensor, pool: Pool = SINGLE) -> Tensor:
        """Update the statistics with a batch and return the scale of each trajectory's game, [B, 1].

        Args:
            games: int64 [B], the game of each trajectory.
            advantages: [B, T].
            valids: bool [B, T], steps that count.
            pool: learners whose steps make the statistics together.
        """
        squares = torch.where(valids, advantages.square(), 0).sum(1)
        sums = torch.stack([valids.sum(1).to(squares.dtype), squares])
        count, total = pool.mean(sums.new_zeros(2, len(self.weight)).index_add_(1, games, sums))
        # A game that is not in the minibatch keeps its statistics; so does one whose advantages are not finite, since a
        # NaN would stay in them for good. The weight corrects for the start at zero.
        updated = (count > 0) & total.isfinite()
        keep = torch.where(updated, self.decay, 1.0)
        # In place, because a captured update uses fixed addresses.
        now = torch.where(updated, total / torch.where(count > 0, count, 1), 0)
        self.mean_square.copy_(keep * self.mean_square + (1 - keep) * now)
        self.weight.copy_(keep * self.weight + (1 - keep))
        scale = (self.mean_square / self.weight.clamp(min=1e-6)).sqrt().clamp(min=self.floor)
        return scale[games][:, None]


class ReturnScales:
    """The running standard deviation of each game's discounted returns, by which its rewards are divided.

    Source: ``VecNormalize`` of OpenAI's baselines, as in Procgen's own experiments (Cobbe et al., ICML 2020,
    arXiv:1912.01588). With G_t = gamma G_{t-1} + r_t, restarted at each episode, rewards become
    r / sqrt(var(G) + 1e-8), clipped to ±10; the mean of G is not subtracted. The statistics are over all steps since
    training began, those of a batch included before its rewards are divided.

    Deviations: one variance a game, not one for all; the statistics are updated once a batch, not once a step. And the
    learner sees segments of T steps, not an environment's whole past, so G before a segment is not known. Taking it as
    0 makes the deviation much too small unless gamma^T is small (by half and more at gamma = 0.99 and T = 32). Instead
    its first two moments are solved for: G_t = H_t + f_t C, with H_t the return within the segment, C the return
    carried in from before, and f_t its discount, 0 from an episode's end on. If training changes slowly, C has the
    distribution of what a segment carries over to the next, which gives one linear equation for E[C] and one for
    E[C^2]. The correlation of C with the rewards of its segment, within a game, is neglected.

    Updates are in place on the device, without a host sync.
    """

    epsilon = 1e-8
    limit = 10.0

    def __init__(self, discounts: Tensor) -> None:
        """``discounts`` [games], each below 1; everything is on their device."""
        self.discounts = discounts.double()
        num_games, device = len(discounts), discounts.device
        # Counts run into hundreds of millions.
        self.moments = torch.zeros(2, 5, num_games, dtype=torch.float64, device=device)
        """[2, 5, games], means of H, f, H^2, H f, f^2: over all steps, and of what a segment carries over."""
        self.count = torch.zeros(num_games, dtype=torch.float64, device=device)
        """[games], number of segments in the means."""

    def load(self, moments: Tensor, count: Tensor) -> None:
        """Restore the statistics of a checkpoint."""
        self.moments.copy_(moments)
        self.count.copy_(count)

    @property
    def deviation(self) -> Tensor:
        """[games], of the discounted returns; 0 for a game without any reward so far."""
        (h, f, hh, hf, ff), (h_last, f_last, hh_last, hf_last, ff_last) = self.moments
        c = h_last / (1 - f_last)
        cc = (hh_last + 2 * hf_last * c) / (1 - ff_last)
        return (hh + 2 * hf * c + ff * cc - (h + f * c).square()).clamp(min=0).sqrt()

    @torch.no_grad()
    def update(self, rewards: Tensor, dones: Tensor, games: Tensor, pool: Pool = SINGLE) -> None:
        """Update the statistics with a batch: rewards and bool dones [B, T], games int64 [B].

        Steps that the losses leave out (stale ones, those of another policy) count here. A segment with a reward that
        is not finite does not: it would stay in the means for good.
        """
        finite = rewards.isfinite().all(1)
        rewards = torch.where(finite[:, None], rewards, 0)
        continues = (~dones).double()
        # G_t = r_t + f_t G_{t-1}: affine maps, composed over ever longer stretches in log2 T rounds, as V-trace does.
        h, f = rewards.double(), functional.pad(continues[:, :-1], (1, 0), value=1.0)
        f = self.discounts[games][:, None] * f
        reach = 1
        while reach < rewards.shape[1]:
            h = h + f * functional.pad(h[:, :-reach], (reach, 0))
            f = f * functional.pad(f[:, :-reach], (reach, 0), value=1.0)
            reach *= 2
        carried_over = _moments(h[:, -1], f[:, -1]) * continues[:, -1]
        sums = torch.stack([_moments(h, f).mean(2), carried_over]) * finite
        sums = torch.zeros_like(self.moments).index_add_(2, games, sums)
        count = torch.zeros_like(self.count).index_add_(0, games, finite.double())
        flat = pool.mean(torch.cat([sums.view(-1, len(count)), count[None]]))
        sums, count = flat[:-1].view_as(sums), flat[-1]
        self.count.add_(count)
        self.moments.add_((sums - count * self.moments) / torch.where(self.count > 0, self.count, 1))

    def normalise(self, rewards: Tensor, games: Tensor) -> Tensor:
        """Divide rewards [B, T] by the deviation of their game (games int64 [B]) and clip them, [B, T]."""
        unit = (self.deviation.square() + self.epsilon).sqrt().to(rewards.dtype)
        return (rewards / unit[games][:, None]).clamp(-self.limit, self.limit)


def _moments(h: Tensor, f: Tensor) -> Tensor:
    return torch.stack([h, f, h.square(), h * f, f.square()])
