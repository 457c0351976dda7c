"""Any Gymnasium environment as one vector environment with flat, named observations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from gymnasium.error import ClosedEnvironmentError
from torch import Tensor

from srwm_agents.envs.added_entries import AddedEntries
from srwm_agents.envs.compatibility import AUTORESET, VectorEnv, with_masks
from srwm_agents.envs.episodes import EpisodeTracker
from srwm_agents.envs.gymnasium_task import EnvironmentFailedError, GymnasiumTask
from srwm_agents.envs.stepping import Environments, Layout, OwnVector, Results, Stepper
from srwm_agents.envs.upload import PackedUpload
from srwm_agents.envs.worker_processes import WorkerProcesses
from srwm_agents.spaces.actions import check_choice

Array = npt.NDArray[Any]
Observation = dict[str, Any]

MAX_SEED = 2**31 - 1


class GymnasiumVectorEnv(VectorEnv):
    """A vector of N environments of one Gymnasium id, with the interface of :class:`.procgen.ProcgenVectorEnv`.

    Observations are a dict of arrays. An environment's Box, Discrete, MultiDiscrete or MultiBinary is the entry
    ``obs``, those within Dict and Tuple spaces ``obs/KEY`` and ``obs/INDEX``: images channels first (uint8, or float32)
    [N, C, H, W], vectors float32 [N, width], categories int64 [N, K] from 0. On request they have entries that are
    added to them: :class:`.added_entries.AddedEntries`.

    Actions are those of the environment, [N, …]. Autoreset is same-step: where an episode ended, the observation is
    the next one's first. Its last observation is not kept.

    ``infos`` of each step: ``episode_return`` float32 [N], ``episode_length`` int64 [N], so far, and ``episode_ended``
    bool [N], where these are final; beside each key gymnasium's mask ``_key``.

    With ``device`` None everything is NumPy; with a torch device observations, rewards and flags are tensors there.
    ``step_async`` starts the processes on a step and returns at once; ``step_wait`` returns what ``step`` does. Without
    processes the environments are stepped in ``step_wait``.
    """

    def __init__(
        self,
        task: GymnasiumTask,
        num_envs: int,
        *,
        seed: int,
        processes: int,
        device: torch.device | None,
        last_action: bool,
        last_reward: bool,
        episode_step: bool,
        reuse_tensors: bool,
        render_mode: str | None,
    ) -> None:
        """Use :func:`make_gymnasium`, which checks the arguments."""
        # Until the first reset: spaces alone cost nothing. First, because an object that fails below is closed, too.
        self._stepper: Stepper | None = None
        self.task = task
        self.games = [task.id]
        """What is played, in a list as Procgen has it."""
        self.game_index = np.zeros(num_envs, np.int64)
        """[N], zeros: all environments play the same."""
        self.leaves, self.actions, action_space, metadata = task.described()
        self.metadata = {**metadata, **AUTORESET}
        self.device = device
        self.render_mode = render_mode
        self._added = AddedEntries(self.actions, last_action, last_reward, episode_step)
        self._processes = processes
        self._seed: int | None = seed
        single: dict[str, spaces.Space[Any]] = {leaf.name: leaf.space for leaf in self.leaves}
        super().__init__(num_envs, spaces.Dict({**single, **self._added.spaces}), action_space)
        self._upload: PackedUpload | None = None
        if device is not None and device.type == "cuda":
            self._upload = PackedUpload(device, reuse=reuse_tensors)
            self._uploaded = torch.cuda.Event()
        self._tracker = EpisodeTracker(num_envs)
        self._results: Results | None = None

    def _start(self) -> Stepper:
        layout = Layout.of(self.leaves, self.actions.shape, self.actions.continuous, self.num_envs)
        own = self.render_mode is None and self.task.has_vector()
        if self._processes and not own:
            stepper = WorkerProcesses(self.task, layout, self.num_envs, min(self._processes, self.num_envs))
            self._results = stepper.results
            return stepper
        self._results = layout.place(bytearray(layout.size))
        if own:
            return OwnVector(self.task, self.leaves, self._results)
        return Environments(self.task, self.leaves, self._results, self.render_mode)

    def reset(  # type: ignore[override]  (gymnasium 0.29 lets a seed be a list, one an environment)
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin new episodes in all environments; with a seed, environment i gets ``seed + i``.

        Raises:
            EnvironmentFailedError: an environment raised an exception.
            ClosedEnvironmentError: after ``close``.
        """
        self._check_open()
        if self._stepper is None:
            self._stepper = self._start()
        first = self._seed if seed is None else seed
        self._seed = None
        seeds = None if first is None else [(first + i) % (MAX_SEED + 1) for i in range(self.num_envs)]
        self._stepper.reset(seeds)
        self._tracker.restart()
        return self._observation(np.zeros(self.num_envs, np.float32), np.zeros(self.num_envs, np.int64), {}), {}

    def step_async(self, actions: Array | Tensor | Sequence[Any]) -> None:
        """Begin one step of all environments, and return at once.

        Raises:
            ValueError: actions of the wrong shape or type, or out of range.
            ClosedEnvironmentError: after ``close``.
        """
        self._check_open()
        assert self._stepper is not None, "call reset() first"
        assert self._results is not None
        taken = np.asarray(actions.cpu() if isinstance(actions, Tensor) else actions)
        self._results.actions[:] = check_choice(self.actions, taken, self.num_envs)
        self._stepper.begin()

    def step_wait(self, **kwargs: Any) -> tuple[Observation, Any, Any, Any, dict[str, Any]]:
        """Wait for the step that ``step_async`` began, and return what ``step`` does.

        Raises:
            EnvironmentFailedError: an environment raised an exception, or its process ended; or a number is not finite,
                or a category not in its space.
        """
        assert self._stepper is not None
        assert self._results is not None
        self._stepper.finish()
        results = self._results
        rewards, terminated, truncated = (a.copy() for a in (results.rewards, results.terminated, results.truncated))
        ended = terminated | truncated
        returns, lengths = self._tracker.step(rewards, ended)
        info = {"episode_return": returns, "episode_length": lengths, "episode_ended": ended}
        flags: dict[str, Any] = {"rewards": rewards, "terminated": terminated, "truncated": truncated}
        observation = self._observation(rewards, np.where(ended, 0, lengths), flags)
        infos = with_masks(info, np.ones(self.num_envs, bool))
        return observation, flags["rewards"], flags["terminated"], flags["truncated"], infos

    def render(self) -> list[Array]:  # type: ignore[override]
        """A frame [height, width, 3] uint8 of each environment; needs ``render_mode="rgb_array"``."""
        self._check_open()
        if self.render_mode is None or self._stepper is None:
            raise ValueError('render() needs make_gymnasium(..., render_mode="rgb_array"), and reset() before it')
        return self._stepper.render()

    def close_extras(self, **kwargs: Any) -> None:
        """End the processes, or close the environments."""
        if self._stepper is not None:
            self._stepper.close()

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError("the environment is closed, make a new one")

    def _observation(self, rewards: Array, steps: Array, flags: dict[str, Any]) -> Observation:
        """The observation as :attr:`device` wants it; ``flags`` are replaced by what they are there."""
        assert self._results is not None
        self._check(self._results.observations, rewards)
        entries = {**self._results.observations, **self._added.arrays(rewards, self._results.actions, steps)}
        if self.device is None:  # the next step overwrites the results
            return {name: array.copy() for name, array in entries.items()}
        tensors = self._tensors({**entries, **flags})
        flags.update((name, tensors.pop(name)) for name in flags)
        return dict(tensors)

    def _check(self, observations: Mapping[str, Array], rewards: Array) -> None:
        """Name what would end training some steps later, where nothing tells any more where it came from."""
        wrong = next(filter(None, (leaf.wrong(observations[leaf.name]) for leaf in self.leaves)), None)
        if wrong is None and not np.isfinite(rewards).all():
            wrong = f"a reward is {rewards[~np.isfinite(rewards)][0]}, expected a finite number"
        if wrong is not None:
            raise EnvironmentFailedError(f"{self.task.id}: {wrong}")

    def _tensors(self, arrays: Mapping[str, Array]) -> dict[str, Tensor]:
        assert self.device is not None
        if self._upload is None:
            return {name: torch.from_numpy(array.copy()).to(self.device) for name, array in arrays.items()}
        self._uploaded.synchronize()  # the transfer before, from the same memory
        tensors = self._upload(arrays)
        self._uploaded.record(torch.cuda.current_stream(self.device))
        return tensors


def make_gymnasium(
    id: str,
    num_envs: int,
    seed: int | None = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    processes: int = 0,
    device: torch.device | str | None = None,
    last_action: bool = False,
    last_reward: bool = False,
    episode_step: bool = False,
    reuse_tensors: bool = False,
    render_mode: str | None = None,
) -> GymnasiumVectorEnv:
    """Make a vector of one Gymnasium environment.

    An environment that has a vector form of its own (``vector_entry_point``) with same-step autoreset is stepped by
    that; all others one by one, in processes or in this one.

    Args:
        id: a registered id, or "module:ID".
        num_envs: environments in all.
        seed: of the environments, of which the i-th gets ``seed + i``; None for a random one.
        kwargs: of ``gymnasium.make``.
        processes: that step the environments, each its part of them; 0: this one.
        device: None for NumPy; a torch device for tensors there.
        last_action, last_reward, episode_step: entries to add to the observation (:class:`.AddedEntries`).
        reuse_tensors: give the same tensors at every step, each overwritten by the next; needs a CUDA ``device``.
        render_mode: "rgb_array" allows ``render()``, with environments in this process; None.

    Raises:
        TaskError: no such environment, one that cannot be made, or that has spaces which an agent cannot have.
        ValueError: another argument out of range.
    """
    if num_envs < 1:
        raise ValueError(f"num_envs is {num_envs}, expected at least 1")
    if processes < 0:
        raise ValueError(f"processes is {processes}, expected at least 0")
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode is {render_mode!r}, allowed: None, 'rgb_array'")
    if render_mode is not None and processes:
        raise ValueError(f"processes is {processes}, expected 0 with a render_mode")
    where = None if device is None else torch.device(device)
    if reuse_tensors and (where is None or where.type != "cuda"):
        raise ValueError(f"reuse_tensors is True, but device is {device!r}, expected a CUDA device")
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed is {seed}, allowed: 0 to {MAX_SEED}")
    return GymnasiumVectorEnv(
        GymnasiumTask(id, dict(kwargs or {})),
        num_envs,
        seed=int(np.random.default_rng().integers(MAX_SEED)) if seed is None else seed,
        processes=processes,
        device=where,
        last_action=last_action,
        last_reward=last_reward,
        episode_step=episode_step,
        reuse_tensors=reuse_tensors,
        render_mode=render_mode,
    )
