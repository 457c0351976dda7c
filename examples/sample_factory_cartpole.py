"""CartPole without velocities on Sample Factory, with an SRWM as memory: `train`, then watch it with `enjoy`."""

import sys

import gymnasium
import numpy as np
from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args
from sample_factory.enjoy import enjoy
from sample_factory.envs.env_utils import register_env
from sample_factory.train import run_rl

from srwm_agents.integrations.sample_factory import add_core_arguments, finish_core_config, register_core


class Positions(gymnasium.ObservationWrapper):
    def __init__(self, env):
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Box(-5, 5, (2,), np.float32)

    def observation(self, observation):
        return observation[[0, 2]]


def make_env(name, cfg=None, env_config=None, render_mode=None):
    return Positions(gymnasium.make("CartPole-v1", render_mode=render_mode))


if __name__ == "__main__":
    command = sys.argv.pop(1)  # train or enjoy
    parser, _ = parse_sf_args(evaluation=command == "enjoy")
    add_core_arguments(parser)  # --core (an SRWM) and its settings, for CartPole:
    parser.set_defaults(hidden_size=32, num_layers=1, num_heads=2, ff_size=64)
    parser.set_defaults(input_softmax=False, input_norm=True, query_scale=3.0, state_decay=0.7)
    parser.set_defaults(device="cpu", serial_mode=True, async_rl=False, train_for_env_steps=60_000, reward_scale=0.1)
    parser.set_defaults(num_workers=1, num_envs_per_worker=16, worker_num_splits=1, encoder_mlp_layers=[32])
    parser.set_defaults(rollout=32, batch_size=512, num_epochs=10, ppo_clip_ratio=0.2, learning_rate=1e-3)
    cfg = finish_core_config(parse_full_cfg(parser))
    register_env(cfg.env, make_env)
    register_core()
    print((run_rl if command == "train" else enjoy)(cfg))
