"""Agents whose weights are means over the course of their training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from srwm_agents.agent import Agent, AgentError, load_agent, save_agent

MEAN_AGE = 1 / 7
"""Of the weights in an average, as a part of the training so far: that of the one in docs/results/procgen.md."""

_log = logging.getLogger(__name__)


def average_agents(agents: Sequence[Agent], shares: Sequence[float] | None = None) -> Agent:
    """The agent with the mean of the weights of ``agents``, which must be of one training run.

    Source: stochastic weight averaging, Izmailov et al., UAI 2018 (arXiv:1803.05407), which averages what a run goes
    through; weights of different runs have no useful mean.

    Args:
        agents: at least one; the result has the configuration of the last.
        shares: a weight for each, which sum to 1; default: all alike.

    Raises:
        ValueError: no agents, agents that are not built alike, or shares that are not one for each with a sum of 1.
    """
    if not agents:
        raise ValueError("no agents to average")
    shares = [1 / len(agents)] * len(agents) if shares is None else shares
    if len(shares) != len(agents) or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares are {list(shares)}, expected {len(agents)} with a sum of 1")
    last = agents[-1]
    if any(replace(agent.config, training={}) != replace(last.config, training={}) for agent in agents):
        raise ValueError("agents of different configurations cannot be averaged")
    states = [agent.state_dict() for agent in agents]
    mean = Agent(last.config).to(last.device).eval()
    with torch.no_grad():
        for name, tensor in mean.state_dict().items():
            tensor.copy_(sum(share * state[name] for share, state in zip(shares, states, strict=True)))
    return mean


def update_average(folder: Path, agent: Agent) -> None:
    """Move the average in ``folder`` towards ``agent``, the latest of its run; the first is the average itself.

    Source: polynomial-decay averaging, Shamir & Zhang, ICML 2013 (arXiv:1212.1824), section 4, whose last iterates
    count most, however long a run becomes. Deviations: of agents as they are saved and not of every update's weights,
    by frames and not by their number. ``agent.config.training["frames"]`` says where each stands.

    An average that does not load, is of another configuration, or is ahead of ``agent`` begins anew.
    """
    frames = agent.config.training["frames"]
    if folder.exists():
        try:
            average = load_agent(folder)
            passed = frames - average.config.training["frames"]
            if passed >= 0:
                share = min(1.0, (1 / MEAN_AGE - 1) * passed / max(frames, 1))
                agent = average_agents([average, agent], [1 - share, share])
        except (AgentError, ValueError) as error:
            _log.warning("the average of the weights begins anew: %s", error)
    save_agent(agent, folder)
