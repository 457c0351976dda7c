"""Settings by name. A preset sets defaults: any flag on the command line overrides it."""

from __future__ import annotations

from typing import Any

from envs import MEMORY_GAMES, PAPER_GAMES

Settings = dict[str, Any]

COMMON: Settings = {
    "env": "procgen",
    "games": ",".join(PAPER_GAMES),
    "distribution_mode": "easy",
    "num_levels": 200,
    "start_level": 0,
    "core": "srwm",
    "encoder_conv_architecture": "resnet_impala",
    "encoder_conv_mlp_layers": [256],
    "nonlinearity": "relu",
    "batched_sampling": True,
    "with_vtrace": True,
    # V-trace computes its targets anew for each minibatch, so returns cannot be normalised once a batch.
    "normalize_returns": False,
    # Images are divided by 255 in the encoder, where they arrive as bytes.
    "normalize_input": False,
    "reward_clip": 1.0,
    "gamma": 0.99,
    "exploration_loss_coeff": 0.01,
    "value_loss_coeff": 0.5,
    "save_every_sec": 60,
    "save_best_metric": "normalised_score",
    "heartbeat_reporting_interval": 60,
    "set_workers_cpu_affinity": False,
}
"""What every preset starts from, and what no preset at all means."""

ON_GPU: Settings = {"mixed_precision": "bf16", "compile": True, "cuda_graphs": True, "in_process": True}
"""What makes training on a GPU fast; without effect on a CPU."""

PAPER: Settings = {
    **ON_GPU,
    "train_for_env_steps": 300_000_000,
    "num_workers": 2,
    "num_envs_per_worker": 384,
    "rollout": 50,
    "batch_size": 1600,
    "optimizer": "rmsprop",
    "rmsprop_alpha": 0.99,
    "rmsprop_eps": 0.01,
    "learning_rate": 6e-4,
    "lr_schedule": "linear_decay",
    "max_grad_norm": 40.0,
    "loss_reduction": "sum",
    "policy_loss": "vtrace",
    "policy_initialization": "torch_default",
    "policy_head_scale": 1.0,
}
"""Irie et al., ICML 2022, appendix (RL): 32 rollouts of 50 steps an update, losses summed over the batch."""

FAST: Settings = {
    **ON_GPU,
    "train_for_env_steps": 100_000_000,
    "num_workers": 2,
    "num_envs_per_worker": 768,
    "rollout": 32,
    "batch_size": 1536,
    "num_batches_per_epoch": 8,
    "shuffle_minibatches": True,
    # With a softmax over its inputs an SRWM changes too little to be a memory (docs/results/procgen.md).
    "input_softmax": False,
    "input_norm": True,
    "state_decay": 0.95,
    # Without these a matrix explodes now and then (docs/results/procgen_runs.md).
    "unit_keys": True,
    # Well above what a head shows where training goes well (10): against explosions only.
    "state_limit": 30.0,
    "vtrace_c": 0.95,
    "policy_loss": "ppo",
    "ppo_clip_ratio": 0.2,
    "balance_games": True,
    "normalize_advantages": True,
    "optimizer": "adam",
    "adam_eps": 1e-5,
    "learning_rate": 5e-4,
    "lr_schedule": "linear_decay",
    "max_grad_norm": 0.5,
}
"""For a GPU, and for any games."""

PRESETS: dict[str, Settings] = {
    "demo": {
        "experiment": "demo",
        "games": "starpilot,fruitbot",
        "train_for_env_steps": 300_000,
        "train_for_seconds": 180,
        "encoder_conv_architecture": "convnet_impala",
        "hidden_size": 64,
        "num_heads": 4,
        "ff_size": 256,
        "num_workers": 1,
        "num_envs_per_worker": 64,
        "rollout": 32,
        "batch_size": 512,
        "num_batches_per_epoch": 2,
        "shuffle_minibatches": True,
        "learning_rate": 1e-3,
        "max_grad_norm": 1.0,
        "balance_games": True,
        "policy_loss": "ppo",
        "num_epochs": 2,
        "ppo_clip_ratio": 0.2,
        "experiment_summaries_interval": 5,
        "save_every_sec": 30,
    },
    "paper": PAPER,
    "memory": {**PAPER, "games": ",".join(MEMORY_GAMES), "distribution_mode": "memory", "num_levels": 500},
    "fast": FAST,
    "six_games": {
        **FAST,
        "games": ",".join(PAPER_GAMES),
        "train_for_env_steps": 300_000_000,
        "critic": "separate",
        "game_gammas": "maze=.999,leaper=.999,plunder=.997",
        "random_starts": "maze=100",
    },
}
