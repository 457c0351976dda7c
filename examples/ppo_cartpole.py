"""Recurrent PPO on CartPole without velocities, in one file, in the manner of CleanRL: a GRU swapped for an SRWM.

    python examples/ppo_cartpole.py --memory srwm
    python examples/ppo_cartpole.py --memory gru

The cart's and the pole's velocities are hidden, so that the policy has to remember where they were. Needs torch, numpy
and gymnasium (0.29, or 1.1 and later). The class Memory is all that knows which memory it is.

Source: Schulman et al., 2017 (arXiv:1707.06347); Huang et al., ICLR blog track, 2022, for the details of the loop.
"""

from __future__ import annotations

import argparse
import time
from collections import deque

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from srwm_agents import SRWM


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", default="srwm", choices=("srwm", "lstm", "gru", "none"), help="default: srwm")
    parser.add_argument("--seed", type=int, default=0, help="of weights, actions and environments; default: 0")
    parser.add_argument("--steps", type=int, default=49_152, help="of all environments together; default: 49152")
    parser.add_argument("--hidden", type=int, default=32, help="width of the memory; default: 32")
    parser.add_argument("--num_envs", type=int, default=16, help="environments; default: 16")
    parser.add_argument("--rollout", type=int, default=32, help="steps of a rollout; default: 32")
    parser.add_argument("--epochs", type=int, default=10, help="passes over a rollout; default: 10")
    parser.add_argument("--minibatches", type=int, default=1, help="of whole sequences, a pass; default: 1")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="Adam's first, falls to 0; default: 1e-3")
    parser.add_argument("--gamma", type=float, default=0.99, help="discount; default: .99")
    parser.add_argument("--gae_lambda", type=float, default=0.95, help="default: .95")
    parser.add_argument("--clip", type=float, default=0.2, help="of PPO's ratio; default: .2")
    parser.add_argument("--value_weight", type=float, default=0.5, help="of the value loss; default: .5")
    parser.add_argument("--entropy_weight", type=float, default=0.0, help="default: 0")
    parser.add_argument("--target_kl", type=float, default=0.03, help="ends a rollout's passes; default: .03")
    parser.add_argument("--episodes", type=int, default=100, help="greedy ones, played at the end; default: 100")
    return parser.parse_args(args)


class Memory(nn.Module):
    """``out, state = memory(x, state, resets)``: x [T, B, in], state [1, B, state_size], resets [T, B]."""

    def __init__(self, name: str, input_size: int, hidden: int) -> None:
        super().__init__()
        self.name, self.state_size = name, hidden
        if name == "srwm":
            self.rnn: nn.Module = SRWM(input_size, hidden)  # the swap: for nn.GRU(input_size, hidden)
            self.state_size = self.rnn.state_size
        elif name == "gru":
            self.rnn = nn.GRU(input_size, hidden)
        elif name == "lstm":
            self.rnn = nn.LSTM(input_size, hidden)
            self.state_size = 2 * hidden
        else:
            self.rnn = nn.Sequential(nn.Linear(input_size, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())

    def forward(self, x: Tensor, state: Tensor, resets: Tensor) -> tuple[Tensor, Tensor]:
        if self.name == "srwm":
            return self.rnn(x, state, resets)  # all steps in one call: episodes begin inside of it
        if self.name == "none":
            return self.rnn(x), state
        outputs = []
        for x_t, reset in zip(x, resets, strict=True):  # PyTorch's have no resets, so step by step
            state = state * ~reset[:, None]
            before = tuple(part.contiguous() for part in state.chunk(2, -1)) if self.name == "lstm" else state
            out, after = self.rnn(x_t[None], before)
            state = torch.cat(after, -1) if self.name == "lstm" else after
            outputs.append(out)
        return torch.cat(outputs), state


class Policy(nn.Module):
    """Memory, then a linear head each for the actions' logits and the value."""

    def __init__(self, name: str, input_size: int, num_actions: int, hidden: int) -> None:
        super().__init__()
        self.memory = Memory(name, input_size, hidden)
        self.actor, self.critic = nn.Linear(hidden, num_actions), nn.Linear(hidden, 1)
        nn.init.orthogonal_(self.actor.weight, 0.01)
        nn.init.zeros_(self.actor.bias)

    def forward(self, x: Tensor, state: Tensor, resets: Tensor) -> tuple[Categorical, Tensor, Tensor]:
        out, state = self.memory(x, state, resets)
        return Categorical(logits=self.actor(out)), self.critic(out)[..., 0], state


class WithoutVelocities(gymnasium.ObservationWrapper):
    """CartPole that shows its cart's position and its pole's angle only, each as a part of its limit."""

    def __init__(self) -> None:
        super().__init__(gymnasium.make("CartPole-v1"))
        self.observation_space = gymnasium.spaces.Box(-4, 4, (2,), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return (observation[[0, 2]] / (2.4, 0.2095)).astype(np.float32)


def make_envs(count: int) -> gymnasium.vector.SyncVectorEnv:
    """Environments that begin the next episode in the step that ends one, in gymnasium 0.29 as in 1.x."""
    mode = getattr(gymnasium.vector, "AutoresetMode", None)
    options = {"autoreset_mode": mode.SAME_STEP} if mode else {}
    return gymnasium.vector.SyncVectorEnv([WithoutVelocities] * count, **options)


def final_observations(infos: dict, ended: np.ndarray) -> Tensor:
    """The last observations [n, 2] of the n episodes that ended, under gymnasium 1.x's name for them or 0.29's."""
    final = infos["final_obs"] if "final_obs" in infos else infos["final_observation"]
    return torch.from_numpy(np.stack([final[i] for i in np.flatnonzero(ended)]).astype(np.float32))


def train(args: argparse.Namespace) -> Policy:
    torch.manual_seed(args.seed)
    envs = make_envs(args.num_envs)
    policy = Policy(args.memory, 2, 2, args.hidden)
    optimizer = torch.optim.Adam(policy.parameters(), lr=args.learning_rate, eps=1e-5)

    observation = torch.from_numpy(envs.reset(seed=args.seed)[0])
    resets = torch.ones(args.num_envs, dtype=torch.bool)
    state = torch.zeros(1, args.num_envs, policy.memory.state_size)
    lengths, last_returns = np.zeros(args.num_envs), deque([0.0], maxlen=100)  # a point a step
    began = time.process_time()
    updates = args.steps // (args.num_envs * args.rollout)
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = args.learning_rate * (1 - update / updates)
        first_state = state  # of a whole rollout, the state of its first step is all that is kept
        steps = []
        for _ in range(args.rollout):
            with torch.no_grad():
                choices, value, state = policy(observation[None], state, resets[None])
                action = choices.sample()[0]
            after, reward, terminated, truncated, infos = envs.step(action.numpy())
            lengths += 1
            reward = torch.from_numpy(reward).float() / 10  # so that returns are of the size of one
            if truncated.any():  # out of time, not failed: what would have followed is part of the return
                cut = torch.from_numpy(truncated)
                with torch.no_grad():
                    later = policy(
                        final_observations(infos, truncated)[None],
                        state[:, cut],
                        torch.zeros(1, int(cut.sum()), dtype=torch.bool),
                    )
                reward[cut] += args.gamma * later[1][0]
            ended = torch.from_numpy(terminated | truncated)
            steps.append((observation, resets, action, choices.log_prob(action)[0], value[0], reward, ended))
            last_returns.extend(lengths[ended.numpy()])
            lengths[ended.numpy()] = 0
            observation, resets = torch.from_numpy(after), ended
        observations, all_resets, actions, log_probs, values, rewards, ends = map(torch.stack, zip(*steps, strict=True))

        with torch.no_grad():
            following = policy(observation[None], state, resets[None])[1][0]
        advantages, running = torch.zeros_like(rewards), torch.zeros(args.num_envs)
        for t in reversed(range(args.rollout)):
            alive = (~ends[t]).float()
            surprise = rewards[t] + args.gamma * following * alive - values[t]
            advantages[t] = running = surprise + args.gamma * args.gae_lambda * alive * running
            following = values[t]
        targets = advantages + values

        kl = 0.0
        for _ in range(args.epochs):
            for rows in torch.randperm(args.num_envs).chunk(args.minibatches):  # whole sequences
                choices, value, _ = policy(observations[:, rows], first_state[:, rows], all_resets[:, rows])
                log_ratio = choices.log_prob(actions[:, rows]) - log_probs[:, rows]
                ratio = log_ratio.exp()
                kl = (ratio - 1 - log_ratio).mean().item()
                if kl > 1.5 * args.target_kl:
                    break
                gain = advantages[:, rows]
                gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                policy_loss = -torch.min(ratio * gain, ratio.clamp(1 - args.clip, 1 + args.clip) * gain).mean()
                value_loss = 0.5 * (value - targets[:, rows]).square().mean()
                entropy = choices.entropy().mean()
                loss = policy_loss + args.value_weight * value_loss - args.entropy_weight * entropy
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
                optimizer.step()
            if kl > 1.5 * args.target_kl:
                break
        if (update + 1) % 16 == 0 or update + 1 == updates:
            done, seconds = (update + 1) * args.num_envs * args.rollout, time.process_time() - began
            score = f"mean return of the last {len(last_returns)} episodes {np.mean(last_returns):5.1f}"
            print(f"{done:>7,} steps  {seconds:4.0f} CPU s  {score}", flush=True)
    envs.close()
    return policy


@torch.no_grad()
def evaluate(policy: Policy, episodes: int, seed: int) -> np.ndarray:
    """Returns [episodes] of greedy episodes, one in each of as many environments; 500 is the most."""
    envs = make_envs(episodes)
    observation, state = envs.reset(seed=seed)[0], torch.zeros(1, episodes, policy.memory.state_size)
    resets, alive, returns = torch.zeros(1, episodes, dtype=torch.bool), np.ones(episodes, bool), np.zeros(episodes)
    while alive.any():
        choices, _, state = policy(torch.from_numpy(observation)[None], state, resets)
        observation, reward, terminated, truncated, _ = envs.step(choices.logits[0].argmax(-1).numpy())
        returns += reward * alive
        alive &= ~(terminated | truncated)
    envs.close()
    return returns


def main(command: list[str] | None = None) -> np.ndarray:
    args = parse_args(command)
    torch.set_num_threads(1)
    policy = train(args)
    returns = evaluate(policy, args.episodes, seed=args.seed + 1000)
    print(f"{args.memory} seed {args.seed}: {returns.mean():.1f} ± {returns.std():.1f}, {len(returns)} greedy episodes")
    return returns


if __name__ == "__main__":
    main()
