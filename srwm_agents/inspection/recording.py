"""What was recorded: for each environment a row of steps, each with what was seen, done, got and remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from srwm_agents.inspection.layout import Floats, Layer, LayerReading

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Step:
    """One step of one environment."""

    layers: tuple[LayerReading, ...]
    """The memory after the step."""
    state_size: float
    """Euclidean norm of the whole state after the step."""
    reward: float = 0.0
    ended: bool = False
    """Whether the episode ended with this step."""
    value: float | None = None
    """Before the step; None where it is not known, as everything below."""
    probabilities: Floats | None = None
    """[A]: of each action; of several whole numbers side by side."""
    chosen: tuple[int, ...] = ()
    """Columns of ``probabilities`` that were chosen."""
    action: Floats | None = None
    """[K]: real numbers that were chosen."""
    screen: Array | None = None
    """uint8 [height, width, 3], what was to be seen before the step."""
    observation: Floats | None = None
    """[K]: the numbers that were observed before the step."""


@dataclass(frozen=True)
class Tile:
    """A labelled image of a few-shot episode."""

    image: Array
    """uint8 [height, width, 3]."""
    label: int


@dataclass
class Track:
    """The steps of one environment."""

    name: str
    steps: list[Step] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def rewards(self) -> Floats:
        """[T]."""
        return np.array([step.reward for step in self.steps], np.float32)

    @property
    def ended(self) -> npt.NDArray[np.bool_]:
        """[T]."""
        return np.array([step.ended for step in self.steps], bool)

    @property
    def values(self) -> Floats | None:
        """[T]."""
        values = [step.value for step in self.steps]
        return None if None in values else np.array(values, np.float32)

    @property
    def state_sizes(self) -> Floats:
        """[T]."""
        return np.array([step.state_size for step in self.steps], np.float32)

    def stacked(self, name: str) -> Floats | None:
        """[T, …] of "probabilities", "action" or "observation"; None where any step lacks it."""
        entries = [getattr(step, name) for step in self.steps]
        return None if any(entry is None for entry in entries) else np.stack(entries).astype(np.float32)

    def sizes(self, layer: int) -> Floats:
        """[T, heads, blocks]."""
        return np.stack([step.layers[layer].sizes for step in self.steps])

    def rates(self, layer: int) -> Floats:
        """[T, heads, rates]."""
        return np.stack([step.layers[layer].rates for step in self.steps])

    @property
    def has_screens(self) -> bool:
        return any(step.screen is not None for step in self.steps)

    def episodes(self) -> npt.NDArray[np.int_]:
        """[T]: number of each step's episode, from 1."""
        return 1 + np.concatenate([[0], np.cumsum(self.ended)[:-1]]).astype(int)

    def returns(self) -> Floats:
        """[T]: return of the episode so far, this step's reward included."""
        total, so_far = [], 0.0
        for step in self.steps:
            so_far += step.reward
            total.append(so_far)
            so_far = 0.0 if step.ended else so_far
        return np.array(total, np.float32)


@dataclass
class Recording:
    """Tracks that were recorded together, and what is known of them."""

    title: str
    layers: Sequence[Layer]
    tracks: list[Track]
    about: str = ""
    """One or two sentences below the title."""
    frames_per_second: float = 15.0
    """Of the film, and of the page when it plays."""
    action_names: Sequence[str] = ()
    """Of the columns of ``Step.probabilities``; () for numbers."""
    observation_names: Sequence[str] = ()
    axis: str = "step"
    """What a step is."""
    probabilities_title: str = "action probabilities"
    examples: Sequence[Tile] = ()
    """Few-shot: what was shown, one a step."""
    queries: Sequence[Tile] = ()
    answers: Floats | None = None
    """Few-shot: [T, queries, labels], probabilities of each query's labels after each example."""

    @property
    def heading(self) -> str:
        """The title of all that was recorded."""
        return f"{self.title}: {', '.join(track.name for track in self.tracks)}"

    @property
    def is_few_shot(self) -> bool:
        return bool(self.examples)

    @property
    def first(self) -> int:
        """Number of the first step: examples are counted from 1."""
        return 1 if self.is_few_shot else 0

    @property
    def matrix_title(self) -> str:
        """What is drawn as heat maps."""
        if not self.layers:
            return "no matrix"
        if self.layers[0].is_shift:
            return "shift of each weight from its slow (trained) weight"
        return "the fast weight matrix of each head"

    @property
    def size_title(self) -> str:
        """What the sizes of blocks are."""
        if self.layers and self.layers[0].is_shift:
            return "|shift| / |slow weights|"
        return "|W|"

    def scale(self) -> float:
        """The one scale of all heat maps: 99.5 % of all entries of all steps are within it."""
        values = [
            np.abs(layer.matrix[..., ::3]).ravel()
            for track in self.tracks
            for step in track.steps[:: max(1, len(track) // 50)]
            for layer in step.layers
        ]
        if not values:
            return 1.0
        joined = np.concatenate(values).astype(np.float64)
        joined = joined[np.isfinite(joined)]
        found = float(np.quantile(joined, 0.995)) if len(joined) else 0.0
        return found or float(joined.max(initial=0.0)) or 1.0

    def action_name(self, column: int) -> str:
        return self.action_names[column] if self.action_names else str(column)

    def table(self) -> dict[str, list[Any]]:
        """All numbers but the matrices' entries: a row a step of each track, columns by name."""
        columns: dict[str, list[Any]] = {}

        def add(name: str, values: Any) -> None:
            columns.setdefault(name, []).extend(np.asarray(values).tolist())

        for track in self.tracks:
            steps, probabilities = len(track), track.stacked("probabilities")
            add("track", [track.name] * steps)
            add("step", np.arange(steps))
            add("episode", track.episodes())
            add("reward", track.rewards)
            add("return_so_far", track.returns())
            add("ended", track.ended)
            if track.values is not None:
                add("value", track.values)
            if probabilities is not None and all(step.chosen for step in track.steps):
                add("action", ["+".join(self.action_name(c) for c in step.chosen) for step in track.steps])
            for name, title in (("action", "action"), ("observation", "observation")):
                if (numbers := track.stacked(name)) is not None:
                    for i in range(numbers.shape[1]):
                        add(f"{title}_{i}", numbers[:, i])
            for i in range(0 if probabilities is None else probabilities.shape[1]):
                add(f"probability_{self.action_name(i)}", probabilities[:, i])  # type: ignore[index]
            add("state_size", track.state_sizes)
            for index, layer in enumerate(self.layers):
                sizes, rates = track.sizes(index), track.rates(index)
                for head in range(layer.heads):
                    place = f"layer{index + 1}_head{head + 1}"
                    for i, block in enumerate(layer.blocks):
                        add(f"{place}_{'shift' if block.slow else 'size'}_{block.name}", sizes[:, head, i])
                    for i, name in enumerate(layer.rates):
                        add(f"{place}_rate_{name}", rates[:, head, i])
        return columns
