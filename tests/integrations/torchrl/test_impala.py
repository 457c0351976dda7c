"""The IMPALA example: its targets and gradients equal those of our own V-trace."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import torch
from torchrl.modules.utils import get_primers_from_module
from torchrl.objectives import A2CLoss

from srwm_agents.agent import Agent, AgentConfig
from srwm_agents.integrations.torchrl import make_actor_critic, make_environment
from srwm_agents.learning import vtrace

EXAMPLE = Path(__file__).parents[3] / "examples" / "impala_torchrl.py"


def test_targets_and_gradients() -> None:
    torch.manual_seed(0)
    settings = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 16}
    agent = Agent(AgentConfig("srwm", settings, 15, encoder="convnet_impala", encoder_mlp_layers=(16,)))
    actor_critic = make_actor_critic(agent)
    policy: Any = actor_critic.get_policy_operator()
    critic = actor_critic.get_value_operator()
    primers = get_primers_from_module(policy)
    assert primers is not None
    environment = make_environment("starpilot,leaper", 4, num_levels=10, seed=1, num_threads=0)
    environment = environment.append_transform(primers)
    with torch.no_grad():
        data = environment.rollout(60, policy, break_when_any_done=False)
        agent.policy_head.weight.add_(torch.randn_like(agent.policy_head.weight))  # off-policy from here
    assert data["next", "done"].any()
    environment.close()
    data["next", "reward"] = torch.randn_like(data["next", "reward"])
    data = data.exclude("logits", "embed")

    runpy.run_path(str(EXAMPLE))["add_targets"](policy, critic, data, 0.99)

    # The same from the agent alone: all T + 1 observations in one pass, then our own V-trace.
    done = data["next", "done"].squeeze(-1)
    observations = {name: torch.cat([data[name], data["next", name][:, -1:]], dim=1) for name in ("obs", "last_reward")}
    resets = torch.cat([data["is_init"].squeeze(-1), done[:, -1:]], dim=1)
    with torch.no_grad():
        logits, values, _ = agent(observations, data["recurrent_state"][:, 0], resets)
    log_probs = logits[:, :-1].log_softmax(-1).gather(-1, data["action"][..., None]).squeeze(-1)
    log_rhos = log_probs - data["action_log_prob"]
    assert log_rhos.abs().max() > 0.1
    discounts = 0.99 * (~done).float()
    rewards = data["next", "reward"].squeeze(-1)
    expected = vtrace(log_rhos, rewards, discounts, values[:, :-1], values[:, -1])
    # 60 steps of float32 sums, in another order.
    torch.testing.assert_close(data["value_target"].squeeze(-1), expected.targets, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(data["advantage"].squeeze(-1), expected.advantages, rtol=1e-3, atol=1e-4)

    loss = A2CLoss(policy, critic, critic_coeff=0.5, entropy_coeff=0.01, loss_critic_type="l2", functional=False)
    losses = loss(data)
    torch.testing.assert_close(
        losses["loss_objective"], -(log_probs * expected.advantages).mean(), rtol=1e-3, atol=1e-5
    )
    losses["loss_objective"].backward()
    core: Any = agent.core
    for part in ("q", "k", "beta"):
        assert getattr(core.layers[0].weights, part).grad.abs().sum() > 0
