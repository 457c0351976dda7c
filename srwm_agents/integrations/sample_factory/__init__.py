"""Sample Factory: training on its asynchronous engine, with our environment, encoder, cores and learner."""

from srwm_agents.envs.simulator import hush_gym
from srwm_agents.extras import require

require("train", "sample_factory", "gymnasium", "rich", "yaml")
hush_gym()  # Sample Factory imports gym, so this must come first, in workers too

from srwm_agents.integrations.sample_factory.training import TrainingResult, register, train  # noqa: E402

__all__ = ["TrainingResult", "register", "train"]
