"""Recording what the memory does in a Sample Factory program of one's own, while it trains or is replayed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import torch
from sample_factory.algo.utils.context import global_model_factory
from torch import nn

from srwm_agents.inspection import Recorder
from srwm_agents.integrations.sample_factory.core import ConfigError


class RunRecorder:
    """Records one environment of a run whose actor and environments are in this process.

    Example::

        recorder = RunRecorder(steps=300)
        register_env(cfg.env, recorder.wrap(make_env))
        register_core()
        recorder.register()
        run_rl(cfg)
        recorder.write("inspection")

    It needs ``--serial_mode=True --num_workers=1 --worker_num_splits=1``, with which a row of the actor's batch is
    always the same environment; ``enjoy`` plays like that anyway.
    """

    def __init__(self, *, steps: int = 300, env: int = 0, after: int = 0, screens: bool = False) -> None:
        """Make a recorder.

        Args:
            steps: that are recorded.
            env: which of the worker's environments (``vector_index``).
            after: steps of this environment before the first one.
            screens: also keep what it draws: ``render()`` must return uint8 [height, width, 3].

        Raises:
            ValueError: a number out of range.
        """
        for name, value, least in (("steps", steps, 1), ("env", env, 0), ("after", after, 0)):
            if value < least:
                raise ValueError(f"{name} is {value}, expected at least {least}")
        self.steps, self.env, self.after, self.screens = steps, env, after, screens
        self.recorder: Recorder | None = None
        self._outputs: Any = None
        self._made = 0

    def wrap(self, make_env: Callable[..., gymnasium.Env[Any, Any]]) -> Callable[..., gymnasium.Env[Any, Any]]:
        """The environment's factory, for Sample Factory's ``register_env``, with the recorded one watched."""
        return _Environments(self, make_env)

    def register(self) -> None:
        """Have Sample Factory's actor-critic, the one that is registered now, recorded."""
        factory = global_model_factory()
        models: Any = _Models(self, factory.make_actor_critic_func)
        factory.register_actor_critic_factory(models)

    def write(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write the files; as :meth:`srwm_agents.inspection.Recorder.write`.

        Raises:
            ValueError: nothing was recorded.
        """
        if self.recorder is None:
            raise ValueError("nothing was recorded: no actor has acted in this process")
        return self.recorder.write(folder)

    def watch(self, model: nn.Module, cfg: Any) -> None:
        """Read an actor-critic that has been made.

        Raises:
            ConfigError: settings with which rows of the actor's batch are not always the same environments.
        """
        wanted = {"serial_mode": True, "num_workers": 1, "worker_num_splits": 1}
        for name, value in wanted.items():
            if getattr(cfg, name) != value:
                raise ConfigError(f"--{name} is {getattr(cfg, name)}, a recorded run needs {value}")
        model.register_forward_pre_hook(self._before, with_kwargs=True)
        model.register_forward_hook(self._after)

    def _before(self, model: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Listen while the actor acts; the learner asks for values alone, and goes over time elsewhere."""
        values_only = named.get("values_only", arguments[2] if len(arguments) > 2 else False)
        if self.recorder is None and not values_only:
            self.recorder = Recorder(model, rows=[self.env], max_steps=self.steps, title="Inside a Sample Factory run")
            self.recorder.start()
            self.recorder.listening = False
        if self.recorder is not None:
            self.recorder.listening = not values_only

    def _after(self, _model: nn.Module, _arguments: tuple[Any, ...], outputs: Any) -> None:
        if self.recorder is not None and self.recorder.listening:
            self._outputs = outputs
            self.recorder.listening = False

    def stepped(self, reward: float, ended: bool, screen: Any, observation: Any) -> None:
        """The recorded environment has made a step."""
        self._made += 1
        recorder, outputs, self._outputs = self.recorder, self._outputs, None
        if recorder is None or outputs is None or recorder.full or self._made <= self.after:
            return
        row = self.env
        logits, actions = outputs["action_logits"], outputs["actions"]
        discrete = not actions.is_floating_point()
        values = outputs["values"].flatten()
        batch = len(values)
        numbers = getattr(observation, "ndim", 0) == 1
        recorder.step(
            [reward] * batch,
            [ended] * batch,
            values=values,
            probabilities=logits.softmax(-1) if discrete and actions.reshape(batch, -1).shape[1] == 1 else None,
            actions=actions.reshape(batch, -1),
            screens=None if screen is None else [screen] * batch,
            observations=torch.as_tensor(observation)[None].expand(row + 1, -1) if numbers else None,
        )
        if recorder.full:
            recorder.stop()


@dataclass(frozen=True)
class _Environments:
    """A factory of environments that Sample Factory can send to another process, as it does to learn their spaces."""

    run: RunRecorder
    make: Callable[..., gymnasium.Env[Any, Any]]

    def __call__(
        self, name: str, cfg: Any = None, env_config: Any = None, render_mode: str | None = None
    ) -> gymnasium.Env[Any, Any]:
        env = self.make(name, cfg, env_config, render_mode)
        index = 0 if env_config is None else env_config.get("vector_index", 0)
        return _Watched(env, self.run) if index == self.run.env else env


@dataclass(frozen=True)
class _Models:
    """A factory of actor-critics, likewise."""

    run: RunRecorder
    make: Callable[..., nn.Module]

    def __call__(self, cfg: Any, obs_space: Any, action_space: Any) -> nn.Module:
        model = self.make(cfg, obs_space, action_space)
        self.run.watch(model, cfg)
        return model


class _Watched(gymnasium.Wrapper):
    """The recorded environment."""

    def __init__(self, env: gymnasium.Env[Any, Any], run: RunRecorder) -> None:
        super().__init__(env)
        self._run = run
        self._observation: Any = None

    def reset(self, **options: Any) -> Any:
        self._observation, info = super().reset(**options)
        return self._observation, info

    def step(self, action: Any) -> Any:
        screen = self.env.render() if self._run.screens else None
        before = self._observation
        result = super().step(action)
        self._observation, reward, terminated, truncated, _ = result
        self._run.stepped(float(reward), bool(terminated or truncated), screen, before)
        return result
