"""IMPALA on multi-task Procgen in one process, with TorchRL's collector and losses and SRWM memory.

    python examples/impala_torchrl.py --games starpilot,fruitbot --frames 200000

Source: Espeholt et al., ICML 2018 (arXiv:1802.01561): V-trace targets, policy gradient, value loss, entropy bonus.
Each batch is split into minibatches of whole rollouts, so that all updates but the first are off-policy.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torchrl.collectors import Collector
from torchrl.modules import set_recurrent_mode
from torchrl.modules.utils import get_primers_from_module
from torchrl.objectives import A2CLoss
from torchrl.objectives.value.functional import vtrace_advantage_estimate

from srwm_agents.agent import Agent, AgentConfig, save_agent
from srwm_agents.cores import CORES
from srwm_agents.encoders import ENCODERS
from srwm_agents.integrations.torchrl import make_actor_critic, make_environment


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--games", default="starpilot,fruitbot", help="Procgen games, comma-separated")
    parser.add_argument("--core", default="srwm", choices=list(CORES), help="memory of the agent")
    parser.add_argument("--encoder", default="convnet_impala", choices=list(ENCODERS), help="image encoder")
    parser.add_argument("--num_envs", type=int, default=32, help="environments, a multiple of the number of games")
    parser.add_argument("--rollout", type=int, default=32, help="steps of a rollout")
    parser.add_argument("--minibatches", type=int, default=2, help="updates from each batch of rollouts")
    parser.add_argument("--frames", type=int, default=200_000, help="frames to train for")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="Adam's")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, actions and levels")
    parser.add_argument("--agent", default="", help="folder to save the portable agent in")
    return parser.parse_args()


def add_targets(policy: Any, critic: Any, data: Any, gamma: float) -> None:
    """Write V-trace's "advantage" and "value_target" into rollouts [B, T].

    TorchRL's function without its ``VTrace`` module. That one (0.14.1) runs the critic once over the observations and
    once over the next ones, where a recurrent critic starts from the second observation without having seen the first;
    and its pi(a|x) is of a newly sampled action, not of the one that was taken.
    """
    observations = torch.cat([data.select(*critic.in_keys), data["next"].select(*critic.in_keys)[:, -1:]], dim=1)
    with torch.no_grad(), set_recurrent_mode(True):
        values = critic(observations)["state_value"]
        policy_now = policy.get_dist(data.select(*policy.in_keys))
    advantages, targets = vtrace_advantage_estimate(
        gamma,
        policy_now.log_prob(data["action"])[..., None],
        data["action_log_prob"][..., None],
        values[:, :-1],
        values[:, 1:],
        data["next", "reward"],
        data["next", "done"],
        data["next", "terminated"],
        time_dim=1,
    )
    data["advantage"], data["value_target"] = advantages, targets


def main() -> None:
    args = parse_args()
    torch.manual_seed(args.seed)
    games = args.games.split(",")
    environment = make_environment(args.games, args.num_envs, num_levels=200, seed=args.seed)
    agent = Agent(
        AgentConfig(
            core=args.core,
            core_settings={"hidden_size": 64, "num_layers": 2, "num_heads": 4, "ff_size": 256},
            num_actions=15,
            encoder=args.encoder,
            environment={"games": games, "distribution_mode": "easy", "num_levels": 200, "start_level": 0},
        )
    )
    with torch.no_grad():
        agent.policy_head.weight.mul_(0.01)  # a uniform first policy

    actor_critic = make_actor_critic(agent)
    policy: Any = actor_critic.get_policy_operator()
    critic: Any = actor_critic.get_value_operator()
    primers: Any = get_primers_from_module(policy)
    environment = environment.append_transform(primers)
    collector = Collector(environment, policy, frames_per_batch=args.num_envs * args.rollout, total_frames=args.frames)
    loss = A2CLoss(policy, critic, critic_coeff=0.5, entropy_coeff=0.01, loss_critic_type="l2", functional=False)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)

    frames, began, returns = 0, time.monotonic(), {game: float("nan") for game in games}
    losses: Any = {}
    for number, batch in enumerate(collector):
        frames += batch.numel()
        ended = batch["next", "done"].squeeze(-1)
        for index, game in enumerate(games):
            finished = batch["next", "episode_return"][ended & (batch["game_index"].squeeze(-1) == index)]
            if len(finished):
                returns[game] = finished.mean().item()
        batch["next", "reward"].clamp_(-1, 1)
        # The losses would use these outputs of the behaviour policy in place of the learner's.
        batch = batch.exclude("logits", "embed")
        for minibatch in batch[torch.randperm(args.num_envs)].chunk(args.minibatches):
            add_targets(policy, critic, minibatch, gamma=0.99)
            losses = loss(minibatch)
            total = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
            optimizer.zero_grad()
            total.backward()
            torch.nn.utils.clip_grad_norm_(agent.parameters(), 1.0)
            optimizer.step()
        if number % 10 == 0:
            means = ", ".join(f"{game} {value:.2f}" for game, value in returns.items())
            rate = frames / (time.monotonic() - began)
            print(f"{frames:,} frames, {rate:,.0f}/s, entropy {losses['entropy'].item():.2f} | {means}", flush=True)
    collector.shutdown()
    if args.agent:
        print(f"agent: {save_agent(agent, args.agent)}")


if __name__ == "__main__":
    main()
