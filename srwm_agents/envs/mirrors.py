"""Episodes in mirror images of their levels, so that few levels are more: images and actions are mirrored alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from srwm_agents.envs.games import IMAGE_SHAPE, NUM_ACTIONS

Array = npt.NDArray[Any]

_COLUMNS, _ROWS, _TRANSPOSED = 1, 2, 4
"""Bits of a mirror image: its columns are reversed, its rows are reversed, and before that both are exchanged."""

MIRRORS = {
    "bigfish": (0, _COLUMNS),
    "fruitbot": (0, _COLUMNS),
    "leaper": (0, _COLUMNS),
    "starpilot": (0, _ROWS),
    "maze": tuple(range(8)),
}
"""The mirror images of each game that its rules do not tell apart; other games have none here.

From the games' sources (github.com/openai/procgen, procgen/src/games): fish, cars, logs and gaps come from both sides
alike, starpilot's ships from above and below alike, and a maze has no direction. Sprites stand on their heads in some.
What differs from new levels is where a maze begins: in any corner, in place of the lower left one. Plunder is left out,
whose legend is always on the left.
"""

_MOVES = 9  # the first actions move: 3 (1 + right) + 1 + up; the others are the same in all mirror images
_SIDE = IMAGE_SHAPE[-1]


def _action_table() -> Array:
    """[8, 15]: the simulator's action for each action of a policy that sees a mirror image.

    Where rows and columns are exchanged, a diagonal action becomes the vertical one that a maze, in which the
    horizontal part of a diagonal action counts alone, makes of it.
    """
    table = np.tile(np.arange(NUM_ACTIONS), (8, 1))
    for image in range(8):
        for action in range(_MOVES):
            right, up = action // 3 - 1, action % 3 - 1
            if image & _COLUMNS:
                right = -right
            if image & _ROWS:
                up = -up
            if image & _TRANSPOSED:
                # Rows count downward: to the right in the exchanged image is downward in the simulator's.
                right, up = (0, -right) if right else (-up, 0)
            table[image, action] = 3 * (1 + right) + 1 + up
    return table


def _pixel_table() -> Tensor:
    """int64 [8, pixels]: the simulator's pixel from which each pixel of a mirror image comes."""
    pixels = torch.arange(_SIDE * _SIDE).view(_SIDE, _SIDE)
    images = []
    for image in range(8):
        seen = pixels.t() if image & _TRANSPOSED else pixels
        seen = seen.flip(0) if image & _ROWS else seen
        images.append((seen.flip(1) if image & _COLUMNS else seen).flatten())
    return torch.stack(images)


class Mirrors:
    """The mirror images in which N environments play; each episode's is drawn anew."""

    def __init__(self, games: Sequence[str], game_index: Array, seed: int) -> None:
        """``game_index`` [N]: index into ``games`` of each environment's game."""
        self._allowed = [np.array(MIRRORS.get(games[int(game)], (0,))) for game in game_index]
        self._random = np.random.default_rng(seed)
        self._actions = _action_table()
        self._pixels: Tensor | None = None
        self._mirrored: Tensor | None = None
        self.images = np.zeros(len(game_index), np.int64)
        """[N], which mirror image each environment plays in; 0: the level as it is."""
        self.restart(np.ones(len(game_index), bool))

    def restart(self, begun: Array) -> None:
        """Draw anew where ``begun`` [N] is True."""
        for i in np.flatnonzero(begun):
            self.images[i] = self._random.choice(self._allowed[i])

    def actions(self, actions: Array) -> Array:
        """The simulator's actions [N] for those of a policy that sees mirror images."""
        return self._actions[self.images, actions]

    def mirrored(self, frames: Array) -> Array:
        """The simulator's frames [N, 64, 64, 3], as a copy in which they are mirrored."""
        seen = frames.copy()
        for image in range(1, 8):
            where = np.flatnonzero(self.images == image)
            if len(where):
                part = frames[where]
                part = part.transpose(0, 2, 1, 3) if image & _TRANSPOSED else part
                part = part[:, ::-1] if image & _ROWS else part
                seen[where] = part[:, :, ::-1] if image & _COLUMNS else part
        return seen

    def mirrored_on_device(self, frames: Tensor, images: Tensor) -> Tensor:
        """The same on a device, where ``images`` are a copy of :attr:`images`; always the same tensor."""
        if self._pixels is None or self._mirrored is None:
            self._pixels = _pixel_table().to(frames.device)
            self._mirrored = torch.empty_like(frames)
        pixels = self._pixels[images][:, :, None].expand(-1, -1, frames.shape[-1])
        torch.gather(frames.flatten(1, 2), 1, pixels, out=self._mirrored.flatten(1, 2))
        return self._mirrored


def can_be_mirrored(games: Sequence[str]) -> bool:
    """Whether any of the games has mirror images."""
    return any(game in MIRRORS for game in games)
