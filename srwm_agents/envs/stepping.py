"""Environments stepped together, each of which writes a row of shared arrays: in this process, or a vector's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from srwm_agents.envs.gymnasium_task import EnvironmentFailedError, GymnasiumTask
from srwm_agents.spaces.gymnasium_spaces import Leaf

Array = npt.NDArray[Any]

_ALIGNMENT = 64
"""Bytes, a cache line: no two arrays share one."""


@dataclass(frozen=True)
class Results:
    """What a step of N environments leaves; a row an environment."""

    observations: dict[str, Array]
    """[N, …] by entry: the next episode's first observation where one has ended."""
    rewards: Array
    """float32 [N]."""
    terminated: Array
    """bool [N]."""
    truncated: Array
    """bool [N], where the episode ended by a limit of time."""
    actions: Array
    """[N, *shape], the actions of the step."""

    def rows(self, part: slice) -> Results:
        """The same arrays of some environments."""
        observations = {name: array[part] for name, array in self.observations.items()}
        return Results(observations, *(a[part] for a in (self.rewards, self.terminated, self.truncated, self.actions)))


@dataclass(frozen=True)
class Layout:
    """Where in one piece of memory the arrays of :class:`Results` lie."""

    arrays: tuple[tuple[str, tuple[int, ...], str], ...]
    """Name, shape and type of each."""

    @classmethod
    def of(cls, leaves: Sequence[Leaf], action_shape: tuple[int, ...], real_actions: bool, number: int) -> Layout:
        """The arrays of ``number`` environments."""
        observations = [(leaf.name, (number, *leaf.entry.shape), leaf.dtype.str) for leaf in leaves]
        rest = [("", (number,), "f4"), ("", (number,), "?"), ("", (number,), "?")]
        actions = ("", (number, *action_shape), "f4" if real_actions else "i8")
        return cls((*observations, *rest, actions))

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(_bytes(shape, kind) for _, shape, kind in self.arrays)

    def place(self, memory: Any) -> Results:
        """The arrays in ``memory``, a buffer of at least ``size`` bytes."""
        made, begin = [], 0
        for _, shape, kind in self.arrays:
            made.append(np.ndarray(shape, kind, memory, begin))
            begin += _bytes(shape, kind)
        names = [name for name, _, _ in self.arrays]
        return Results(dict(zip(names[:-4], made[:-4], strict=True)), *made[-4:])


def _bytes(shape: tuple[int, ...], kind: str) -> int:
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    return -(-size // _ALIGNMENT) * _ALIGNMENT


class Stepper(Protocol):
    """N environments that are stepped together, into :class:`Results` that it was made with."""

    def reset(self, seeds: Sequence[int] | None) -> None:
        """Begin episodes everywhere; ``seeds``, one an environment, or None to go on with their random numbers."""
        ...

    def begin(self) -> None:
        """Begin the step whose actions are in the results."""
        ...

    def finish(self) -> None:
        """Wait until the step is done."""
        ...

    def render(self) -> list[Array]:
        """A frame of each environment."""
        ...

    def close(self) -> None:
        """Free the environments."""
        ...


class Environments:
    """Environments of one task, stepped one after another by whoever calls ``finish``."""

    def __init__(
        self, task: GymnasiumTask, leaves: Sequence[Leaf], results: Results, render_mode: str | None = None
    ) -> None:
        self._task, self._leaves, self._results = task, leaves, results
        self._single = not results.actions.shape[1:] and results.actions.dtype.kind == "i"
        self._environments = [task.make(render_mode) for _ in range(len(results.rewards))]

    def reset(self, seeds: Sequence[int] | None) -> None:
        self._told(self._reset, seeds)

    def _reset(self, seeds: Sequence[int] | None) -> None:
        each = [None] * len(self._environments) if seeds is None else seeds
        pairs = zip(self._environments, each, strict=True)
        self._write([environment.reset(seed=seed)[0] for environment, seed in pairs])

    def begin(self) -> None:
        """Nothing: they are stepped in :meth:`finish`."""

    def finish(self) -> None:
        self._told(self._step)

    def _step(self) -> None:
        results = self._results
        observations, rewards, terminated, truncated = [], [], [], []
        # Environments index with them and compare them: whole numbers are Python's own.
        actions: Any = results.actions.tolist() if self._single else results.actions
        for environment, action in zip(self._environments, actions, strict=True):
            outcome = environment.step(action)
            if len(outcome) != 5:
                raise EnvironmentFailedError(f"{self._task.id}: step() returned {len(outcome)} values, expected 5")
            observation, reward, ends, runs_out, _ = outcome
            if ends or runs_out:
                observation, _ = environment.reset()
            observations.append(observation)
            rewards.append(reward)
            terminated.append(ends)
            truncated.append(runs_out)
        self._write(observations)
        results.rewards[:] = rewards
        results.terminated[:] = terminated
        results.truncated[:] = truncated

    def _write(self, observations: list[Any]) -> None:
        for leaf in self._leaves:
            values = leaf.convert(np.asarray([leaf.value(observation) for observation in observations]))
            target = self._results.observations[leaf.name]
            if values.shape != target.shape:
                found, expected = list(values.shape[1:]), list(target.shape[1:])
                raise EnvironmentFailedError(
                    f"{self._task.id}: observation {leaf.name!r} has shape {found}, its space says {expected}"
                )
            target[:] = values

    def render(self) -> list[Array]:
        try:
            frames: list[Any] = [environment.render() for environment in self._environments]
        except Exception as error:
            raise failure(self._task, error) from error
        if any(not isinstance(frame, np.ndarray) or frame.ndim != 3 for frame in frames):
            raise EnvironmentFailedError(f"{self._task.id} renders no pictures, expected arrays [height, width, 3]")
        return frames

    def close(self) -> None:
        for environment in self._environments:
            environment.close()

    def _told(self, function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except EnvironmentFailedError:
            raise  # it says all
        except Exception as error:
            raise failure(self._task, error) from error


class OwnVector:
    """The vector environment that a task has of its own."""

    def __init__(self, task: GymnasiumTask, leaves: Sequence[Leaf], results: Results) -> None:
        self._task, self._leaves, self._results = task, leaves, results
        self._vector = task.make_vector(len(results.rewards))

    def reset(self, seeds: Sequence[int] | None) -> None:
        try:
            self._write(self._vector.reset(seed=None if seeds is None else seeds[0])[0])
        except Exception as error:
            raise failure(self._task, error) from error

    def begin(self) -> None:
        """Nothing: the vector is stepped in :meth:`finish`."""

    def finish(self) -> None:
        results = self._results
        try:
            observations, rewards, terminated, truncated, _ = self._vector.step(results.actions)
            self._write(observations)
            results.rewards[:], results.terminated[:], results.truncated[:] = rewards, terminated, truncated
        except Exception as error:
            raise failure(self._task, error) from error

    def _write(self, observations: Any) -> None:
        for leaf in self._leaves:
            self._results.observations[leaf.name][:] = leaf.arrays(observations)

    def render(self) -> list[Array]:
        raise EnvironmentFailedError(f"{self._task.id} is rendered one environment at a time")

    def close(self) -> None:
        self._vector.close()


def failure(task: GymnasiumTask, error: Exception) -> EnvironmentFailedError:
    """What an environment raised, in one line: where it was raised, and the exception."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})"
    text = " ".join(str(error).split())[:500]
    return EnvironmentFailedError(f"{task.id} raised {type(error).__name__}: {text}{where}")
