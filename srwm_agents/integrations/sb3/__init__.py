"""Stable-Baselines3: our cores as memories of ``sb3_contrib.RecurrentPPO``.

Importing this package puts the policies' names into ``RecurrentPPO``, and so does ``srwm_agents.register("sb3")``:

    model = RecurrentPPO("SRWMMlpPolicy", env, policy_kwargs=dict(core="srwm"))
"""

from srwm_agents.envs.simulator import hush_gym
from srwm_agents.extras import require

require("sb3", "stable_baselines3", "sb3_contrib")
hush_gym()  # Stable-Baselines3 imports gym, so this must come first

from sb3_contrib import RecurrentPPO  # noqa: E402

from srwm_agents.integrations.sb3.policies import SRWMCnnPolicy, SRWMMlpPolicy, SRWMMultiInputPolicy  # noqa: E402
from srwm_agents.integrations.sb3.recording import RecorderCallback  # noqa: E402

__all__ = ["RecorderCallback", "SRWMCnnPolicy", "SRWMMlpPolicy", "SRWMMultiInputPolicy", "register"]


def register() -> None:
    """Make ``RecurrentPPO`` know our policies by their names; importing this package has done it already."""
    for policy in (SRWMMlpPolicy, SRWMCnnPolicy, SRWMMultiInputPolicy):
        RecurrentPPO.policy_aliases[policy.__name__] = policy


register()
