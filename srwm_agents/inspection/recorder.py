"""Recorder of what a policy's memory does while it acts, for evaluations and for training programs of one's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from srwm_agents.agent import Agent
from srwm_agents.cores import Core
from srwm_agents.inspection.layout import Reading
from srwm_agents.inspection.reader import Reader
from srwm_agents.inspection.recording import Recording, Step, Track
from srwm_agents.spaces.actions import ActionSpec

Array = npt.NDArray[Any]


class Recorder:
    """Records a core's memory step by step while a policy acts, with what else is known of each step.

    Example, in a loop of one's own::

        agent = load_agent("agents/procgen/srwm")
        with Recorder(agent, names=["starpilot"]) as recorder:
            for _ in range(300):
                screens = env.render()
                actions, state = agent.act(observation, state, resets=starts)
                observation, rewards, terminated, truncated, _ = env.step(actions)
                starts = terminated | truncated
                recorder.step(rewards, starts, screens=screens)
        recorder.write("inspection")

    It listens with forward hooks, so that the policy computes what it computes without it. After each step of the
    environments :meth:`step` keeps what the core's last call with T = 1 left.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        rows: Sequence[int] = (0,),
        names: Sequence[str] = (),
        max_steps: int = 1000,
        title: str = "",
        frames_per_second: float = 15.0,
        action_names: Sequence[str] = (),
        observation_names: Sequence[str] = (),
    ) -> None:
        """Make a recorder, which listens between :meth:`start` and :meth:`stop`.

        Args:
            module: a core, or anything that has one: an :class:`srwm_agents.Agent` (of which values and probabilities
                are recorded too), a policy, an actor-critic. Of several cores the first is recorded.
            rows: which environments of the batch are recorded, a track each.
            names: of the tracks; default: their numbers.
            max_steps: after so many it keeps nothing more (:attr:`full`), so that memory is bounded.
            title: of the page; default: the core's name.
            frames_per_second: of the film.
            action_names, observation_names: labels of their numbers.

        Raises:
            ValueError: no core in ``module``; rows, names or max_steps that do not fit.
        """
        core = next((part for part in module.modules() if isinstance(part, Core)), None)
        if core is None:
            raise ValueError(f"module is a {type(module).__name__} without a core of srwm_agents.cores")
        if not rows or min(rows) < 0 or len(set(rows)) < len(rows):
            raise ValueError(f"rows is {list(rows)}, expected different numbers from 0")
        if names and len(names) != len(rows):
            raise ValueError(f"names has {len(names)} entries, expected one for each of {len(rows)} rows")
        if max_steps < 1:
            raise ValueError(f"max_steps is {max_steps}, expected at least 1")
        self.max_steps = max_steps
        self._rows = list(rows)
        self._reader = Reader(core, rows)
        self._module = module
        self._spec: ActionSpec | None = None
        self._heads: tuple[Tensor, Tensor] | None = None
        self._handle: Any = None
        self._expected: list[Tensor | None] = [None] * len(rows)
        tracks = [Track(name) for name in names or [f"environment {row}" for row in rows]]
        self.recording = Recording(
            title or f"Memory of a {type(core).__name__}",
            self._reader.layers,
            tracks,
            frames_per_second=frames_per_second,
            action_names=action_names,
            observation_names=observation_names,
        )
        """What has been recorded so far."""

    def __len__(self) -> int:
        return len(self.recording.tracks[0])

    @property
    def full(self) -> bool:
        """Whether ``max_steps`` have been recorded."""
        return len(self) >= self.max_steps

    def start(self) -> Self:
        """Begin to listen."""
        self.stop()
        self._reader.attach()
        if isinstance(self._module, Agent):
            self._spec = self._module.actions
            self._handle = self._module.register_forward_hook(self._read_heads)
        return self

    def stop(self) -> None:
        """Listen no more; what was recorded stays."""
        self._reader.detach()
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        self._reader.states = None
        self._expected = [None] * len(self._rows)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def step(
        self,
        rewards: Any,
        ended: Any,
        *,
        values: Any = None,
        probabilities: Any = None,
        actions: Any = None,
        screens: Any = None,
        observations: Any = None,
    ) -> None:
        """Keep the step that the policy has just chosen, after the environments have made it.

        Everything is of the whole batch, as the loop has it: arrays or tensors [N, …], of which the recorded rows are
        taken. To be called after every step; once :attr:`full` it does nothing.

        Args:
            rewards: [N].
            ended: bool [N], True where the episode ended with this step.
            values: [N]; an :class:`srwm_agents.Agent`'s are known.
            probabilities: [N, A]; an :class:`srwm_agents.Agent`'s are known.
            actions: [N] or [N, K] that were taken: whole numbers, columns of ``probabilities``; or real numbers.
            screens: uint8 [N, height, width, 3], before the step; a sequence with None where there is none.
            observations: [N, K] numbers, before the step.

        Raises:
            ValueError: the core was not called with one step (T = 1) since the last one, or a row is not the
                environment that it was at the step before.
        """
        if self.full:
            return
        if self._reader.states is None:
            raise ValueError("the core has not acted since the last recorded step: call it with T = 1, then step()")
        self._check_rows()
        values, probabilities = self._from_heads(values, probabilities)
        batch = {
            "reward": _array(rewards),
            "ended": _array(ended),
            "value": _array(values),
            "probabilities": _array(probabilities),
            "observation": _array(observations),
        }
        taken = _array(actions)
        if taken is not None and self._spec is not None and not self._spec.continuous:
            columns = np.nonzero(self._spec.encoded(taken))[1]  # of the probabilities, which stand side by side
            taken = columns.reshape(len(taken), self._spec.count)
        states = self._reader.states
        for index, (row, reading) in enumerate(zip(self._rows, self._reader.take(), strict=True)):
            own = {name: entry[row] for name, entry in batch.items() if entry is not None}
            step = _step(
                reading, own, None if taken is None else taken[row], screens[row] if screens is not None else None
            )
            self.recording.tracks[index].steps.append(step)
            self._expected[index] = None if step.ended else states[1][index]

    @property
    def listening(self) -> bool:
        """Whether calls of the core are recorded between :meth:`start` and :meth:`stop`; True unless it is set."""
        return self._reader.listening

    @listening.setter
    def listening(self, value: bool) -> None:
        self._reader.listening = value

    def unheard(self, action: Callable[[], Any]) -> Any:
        """Call a function whose use of the core is not recorded; returns what it returns."""
        before, self.listening = self.listening, False
        try:
            return action()
        finally:
            self.listening = before

    def clear(self) -> None:
        """Forget what was recorded, to begin anew."""
        for track in self.recording.tracks:
            track.steps.clear()
        self._expected = [None] * len(self._rows)

    def write(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write page, film, numbers and picture into a folder; returns the files.

        Raises:
            ValueError: nothing was recorded.
            MissingPackageError: a package of the extra ``inspect`` is not installed.
            OSError: the folder cannot be written.
        """
        from srwm_agents.inspection.writing import write_inspection

        return write_inspection(Path(folder), self.recording)

    def _read_heads(self, _agent: nn.Module, _arguments: Any, out: tuple[Tensor, Tensor, Tensor]) -> None:
        logits, values, _ = out
        if logits.shape[1] == 1:
            self._heads = logits[:, 0].detach(), values[:, 0].detach()

    def _from_heads(self, values: Any, probabilities: Any) -> tuple[Any, Any]:
        if self._heads is None or self._spec is None:
            return values, probabilities
        logits, own = self._heads
        self._heads = None
        if probabilities is None and not self._spec.continuous:
            parts = logits.float().split(list(self._spec.sizes), dim=-1)
            probabilities = torch.cat([part.softmax(-1) for part in parts], dim=-1)
        return own if values is None else values, probabilities

    def _check_rows(self) -> None:
        """A batch whose rows are other environments from step to step would be drawn as one, with jumps."""
        assert self._reader.states is not None
        for index, (row, expected) in enumerate(zip(self._rows, self._expected, strict=True)):
            begin = self._reader.states[0][index]
            if expected is None or not begin.any() or torch.allclose(begin, expected, rtol=1e-4, atol=1e-6):
                continue
            raise ValueError(
                f"row {row} of the batch does not go on from the state that it had at the step before: record every "
                "step, of a batch whose rows are the same environments from step to step"
            )


def _array(entry: Any) -> Array | None:
    if entry is None:
        return None
    return entry.detach().cpu().numpy() if isinstance(entry, Tensor) else np.asarray(entry)


def _step(reading: Reading, own: dict[str, Any], action: Any, screen: Any) -> Step:
    """One environment's step: ``own`` are its entries of the batch."""
    layers = tuple(layer._replace(matrix=layer.matrix.astype(np.float16)) for layer in reading.layers)
    probabilities = own.get("probabilities")
    observation = own.get("observation")
    chosen = () if action is None else tuple(np.asarray(action).reshape(-1).tolist())
    discrete = bool(chosen) and all(isinstance(one, int) for one in chosen)
    return Step(
        layers,
        reading.state_size,
        reward=float(np.asarray(own["reward"]).reshape(-1)[0]),
        ended=bool(np.asarray(own["ended"]).reshape(-1)[0]),
        value=None if "value" not in own else float(np.asarray(own["value"]).reshape(-1)[0]),
        probabilities=None if probabilities is None else np.asarray(probabilities, np.float32),
        chosen=tuple(int(one) for one in chosen) if discrete else (),
        action=None if not chosen or discrete else np.asarray(chosen, np.float32),
        screen=None if screen is None else np.asarray(screen, np.uint8),
        observation=None if observation is None else np.asarray(observation, np.float32).reshape(-1),
    )
