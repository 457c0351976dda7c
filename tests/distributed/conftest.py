"""A small distributed training."""

from __future__ import annotations

import functools

import pytest

from srwm_agents.distributed.arguments import parse_distributed_args
from srwm_agents.distributed.learner import DistributedLearner
from srwm_agents.integrations.sample_factory.standalone import begin_experiment, make_learner
from srwm_agents.processes import Processes

SMALL = [
    *("--device=cpu", "--seed=0", "--games=starpilot,leaper", "--num_workers=2", "--num_envs_per_worker=8"),
    *("--encoder_conv_architecture=convnet_impala", "--encoder_conv_mlp_layers", "16"),
    *("--hidden_size=16", "--num_layers=1", "--num_heads=2", "--ff_size=32", "--rollout=8", "--batch_size=64"),
]


@pytest.fixture
def small_flags() -> list[str]:
    return list(SMALL)


@pytest.fixture
def make_distributed_learner(tmp_path):
    """Function from flags to an initialised learner in one process, in the test's temporary folder."""

    def make(*flags: str) -> DistributedLearner:
        cfg = parse_distributed_args([*SMALL, f"--train_dir={tmp_path}", "--experiment=e", *flags])
        begin_experiment(cfg)
        return make_learner(cfg, functools.partial(DistributedLearner, Processes("cpu")))

    return make
