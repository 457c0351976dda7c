"""Averages of the weights that an agent had in the course of its training."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from srwm_agents.agent import Agent, AgentConfig, AgentError, load_agent, save_agent
from srwm_agents.cores import CoreConfig
from srwm_agents.portable import find_portable, nonfinite

MEAN_AGE = 1 / 7
"""Mean age of the weights in an average, as a part of the training so far."""

_log = logging.getLogger(__name__)


def average_agents(agents: Sequence[Agent], shares: Sequence[float] | None = None) -> Agent:
    """The agent with the mean of the weights of ``agents``, which must be of one training run.

    Source: stochastic weight averaging, Izmailov et al., UAI 2018 (arXiv:1803.05407), algorithm 1; weights of
    different runs have no useful mean. Arithmetic: ``torch.optim.swa_utils``.

    Args:
        agents: at least one; the result has the configuration of the last. They are not changed.
        shares: a weight of at least 0 for each, which sum to 1; default: all alike.

    Raises:
        ValueError: no agents, agents that are not built alike or have weights that are NaN or infinite, or shares
            that are not one for each with a sum of 1.
    """
    if not agents:
        raise ValueError("no agents to average")
    shares = [1 / len(agents)] * len(agents) if shares is None else shares
    if len(shares) != len(agents) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares are {list(shares)}, expected {len(agents)} of at least 0 with a sum of 1")
    last = agents[-1]
    if any(_built_as(agent) != _built_as(last) for agent in agents):
        raise ValueError("agents of different configurations cannot be averaged")
    for i, agent in enumerate(agents):
        if broken := nonfinite(agent.state_dict()):
            raise ValueError(f"agent {i} cannot be averaged: {broken}")
    mean, total = agents[0], shares[0]
    for agent, share in zip(agents[1:], shares[1:], strict=True):
        total += share
        mean = _moved(mean, agent, share / total if share > 0 else 0.0)
    mean = _moved(mean, mean, 0.0)  # a copy also where there is only one
    mean.config = last.config
    return mean.eval()


class IntervalMean:
    """The mean of a module's weights over an interval of training, in which :meth:`add` is called regularly.

    Floating-point parameters and buffers are averaged, other buffers are the latest. Without host sync.
    """

    def __init__(self, module: nn.Module) -> None:
        """``module``: whose weights are averaged; they must stay at their addresses."""
        with torch.no_grad():  # a scripted part's copies would have a gradient into its parameters
            self.module = copy.deepcopy(module)
        """A copy of the module with the mean weights."""
        self.count = 0
        """How often :meth:`add` was called in this interval."""
        ours, theirs = ([*each.parameters(), *each.buffers()] for each in (self.module, module))
        pairs = list(zip(ours, theirs, strict=True))
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._latest = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def add(self) -> None:
        """Take the module's present weights into the mean."""
        self.count += 1
        means, weights = zip(*self._averaged, strict=True)
        if self.count == 1:  # whatever the interval before has left
            torch._foreach_copy_(means, weights)  # type: ignore[attr-defined]
        else:
            torch._foreach_lerp_(means, weights, 1 / self.count)  # type: ignore[attr-defined]
        for mean, latest in self._latest:
            mean.copy_(latest)

    def restart(self) -> None:
        """Begin a new interval."""
        self.count = 0


def update_average(folder: Path, agent: Agent) -> None:
    """Move the average in ``folder`` towards ``agent``, the latest of its run; the first is the average itself.

    Source: polynomial-decay averaging, Shamir & Zhang, ICML 2013 (arXiv:1212.1824), section 4, whose last iterates
    count most, however long a run becomes. Deviations: of what is given at each save (training gives the mean of the
    weights since the save before, :class:`IntervalMean`) and not of every update's weights, by frames and not by their
    number. ``agent.config.training["frames"]`` says where each stands.

    An average that does not load, is of another configuration, does not record its frames, or is ahead of ``agent``
    (which was resumed from an older checkpoint) is replaced by ``agent``, with a logged warning that says why.

    Raises:
        ValueError: ``agent`` does not record its frames, or has weights that are NaN or infinite; the average that was
            there stays.
        OSError: the folder cannot be written; the average that was there stays.
    """
    frames = _frames(agent.config)
    if broken := nonfinite(agent.state_dict()):  # at once: below, what is wrong is the average
        raise AgentError(f"{folder} is not moved towards an agent at {frames:,} frames: {broken}")
    if find_portable(folder) is not None:
        try:
            average = load_agent(folder, agent.device)
            before = _frames(average.config)
            if before > frames:
                raise ValueError(f"it stands at {before:,} frames, the agent at {frames:,}")
            share = min(1.0, (1 / MEAN_AGE - 1) * (frames - before) / max(frames, 1))
            agent = average_agents([average, agent], [1 - share, share])
        except (AgentError, ValueError) as error:
            _log.warning("the average of the weights in %s begins anew: %s", folder, error)
    save_agent(agent, folder)


def _moved(average: Agent, agent: Agent, share: float) -> Agent:
    """A copy of ``average`` with its weights and buffers moved by ``share`` of the way to those of ``agent``."""
    moved = AveragedModel(average, multi_avg_fn=get_ema_multi_avg_fn(1 - share), use_buffers=True)
    moved.n_averaged += 1  # the average is in it already; otherwise the first update would copy the agent
    moved.update_parameters(agent)
    return cast(Agent, moved.module)


def _built_as(agent: Agent) -> AgentConfig:
    """The configuration without the record of the training.

    Settings of the core that are not in it have their defaults: an agent saved before a setting existed lacks it.
    """
    core = vars(CoreConfig(input_size=1, **agent.config.core_settings))
    return replace(agent.config, core_settings=core, training={})


def _frames(config: AgentConfig) -> int:
    frames = config.training.get("frames")
    if not isinstance(frames, int) or frames < 0:
        raise ValueError(f"training['frames'] in its record is {frames!r}, expected a number of frames")
    return frames
