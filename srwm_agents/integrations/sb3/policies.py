"""Policies of ``sb3_contrib.RecurrentPPO`` with any core of the registry as their memory."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy.typing as npt
import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from srwm_agents.cores import core_setting_names, make_core
from srwm_agents.integrations.sb3.memory import LSTMLikeCore, LSTMStates, check_states

Array = npt.NDArray[Any]

_LSTM_ONLY = {
    "lstm_hidden_size": "core_settings=dict(hidden_size=…)",
    "n_lstm_layers": "core_settings=dict(num_layers=…)",
    "lstm_kwargs": "core_settings=dict(…)",
}


class SRWMMlpPolicy(RecurrentActorCriticPolicy):
    """Features, a recurrent core, then SB3's heads; for observations that are vectors.

    Everything that ``RecurrentPPO`` does with an LSTM policy works: ``learn``, ``predict`` with state and episode
    starts, ``save`` and ``load``, ``evaluate_policy``. The critic has, under sb3-contrib's own names, a core of its
    own (the default), the actor's (``shared_lstm=True, enable_critic_lstm=False``; the actor's gradient alone trains
    it) or none (``enable_critic_lstm=False``).

    RecurrentPPO's buffer keeps the state of *every* step, for actor and critic: 8 * state_size bytes times n_steps
    times n_envs. An SRWM of 2 layers, 8 heads of 16 has 13,312 floats.
    """

    features: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    """The features extractor unless policy_kwargs name another."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *args: Any,
        core: str = "srwm",
        core_settings: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Make a policy.

        Args:
            observation_space, action_space, lr_schedule: given by ``RecurrentPPO``.
            core: a key of ``srwm_agents.cores.CORES``.
            core_settings: the fields of :class:`srwm_agents.cores.CoreConfig` but for input_size; of both cores.
            args, kwargs: of ``RecurrentActorCriticPolicy`` (net_arch, features_extractor_class, shared_lstm, …),
                but for the shape of its LSTM.

        Raises:
            ValueError: an unknown core or setting, a value out of range, or a setting in the wrong place.
        """
        settings = dict(core_settings or {})
        _check_names(kwargs, settings)
        with torch.device("meta"):  # how wide the output is must be known before how wide the features are
            output_size = make_core(core, input_size=1, **settings).output_size
        kwargs.setdefault("features_extractor_class", self.features)
        super().__init__(observation_space, action_space, lr_schedule, *args, lstm_hidden_size=output_size, **kwargs)
        self.core, self.core_settings = core, settings
        # In the places of the LSTMs that were just made; the optimizer has to know.
        self.lstm_actor = LSTMLikeCore(core, self.features_dim, settings)  # type: ignore[assignment]
        if self.enable_critic_lstm:
            self.lstm_critic = LSTMLikeCore(core, self.features_dim, settings)  # type: ignore[assignment]
        self.lstm_hidden_state_shape = (1, 1, self.lstm_actor.hidden_size)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = ("core", "core_settings", "shared_lstm", "enable_critic_lstm")
        return super()._get_constructor_parameters() | {name: getattr(self, name) for name in own}

    @staticmethod
    def _process_sequence(
        features: Tensor, lstm_states: LSTMStates, episode_starts: Tensor, lstm: Any
    ) -> tuple[Tensor, Any]:
        return lstm(features, lstm_states, episode_starts)

    def predict(
        self,
        observation: Array | dict[str, Array],
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Choose actions; as in SB3, ``state`` is what the last call returned, None for fresh episodes.

        Raises:
            ValueError: a state that is not this policy's, or is of another number of environments.
        """
        if state is not None and (not isinstance(state, tuple) or len(state) != 2):
            raise ValueError(f"state is a {type(state).__name__}, expected the pair (h, c) that predict returned")
        return super().predict(observation, state, episode_start, deterministic)

    def _predict(  # type: ignore[override]  (there, the state is of any length)
        self, observation: Tensor, lstm_states: LSTMStates, episode_starts: Tensor, deterministic: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        # A state of fewer environments would pass for that of longer sequences.
        entry = next(iter(observation.values())) if isinstance(observation, dict) else observation
        check_states(lstm_states, (1, len(entry), self.lstm_actor.hidden_size))
        return super()._predict(observation, lstm_states, episode_starts, deterministic)


class SRWMCnnPolicy(SRWMMlpPolicy):
    """The same for images, through SB3's ``NatureCNN`` unless another features extractor is named."""

    features = NatureCNN


class SRWMMultiInputPolicy(SRWMMlpPolicy):
    """The same for dictionaries of observations, through SB3's ``CombinedExtractor``."""

    features = CombinedExtractor


def _check_names(kwargs: dict[str, Any], settings: dict[str, Any]) -> None:
    """Errors for settings in the wrong place, with the right one."""
    for name, instead in _LSTM_ONLY.items():
        if name in kwargs:
            raise ValueError(f"{name} is a setting of the LSTM policies; here it is policy_kwargs=dict({instead})")
    for name in core_setting_names():
        if name in kwargs:
            raise ValueError(f"{name} is a setting of the core: policy_kwargs=dict(core_settings=dict({name}=…))")
    if "input_size" in settings:
        raise ValueError("core_settings has input_size, which follows from the features: leave it out")
