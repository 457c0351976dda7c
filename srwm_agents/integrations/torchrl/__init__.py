"""TorchRL integration: cores as a tensordict module, Procgen as an environment, agents as policies."""

from srwm_agents.envs.simulator import hush_gym
from srwm_agents.extras import require

require("torchrl", "torchrl", "tensordict")
hush_gym()  # TorchRL imports gym where it is installed, so this must come first

from srwm_agents.integrations.torchrl.environment import ProcgenEnv, make_environment  # noqa: E402
from srwm_agents.integrations.torchrl.module import SRWMModule  # noqa: E402
from srwm_agents.integrations.torchrl.policy import make_actor_critic  # noqa: E402

__all__ = ["ProcgenEnv", "SRWMModule", "make_actor_critic", "make_environment"]
