"""``Reversal-v0``: see a sequence of symbols, then name them from the last to the first.

    python train_rl.py --preset popgym --env experiments.reversal.environment:Reversal-v0 --env_kwargs '{"length": 16}'

The task of POPGym's Autoencode (Morad et al., ICLR 2023), shorter: AutoencodeEasy has 52 symbols of 4 kinds. Written
anew, from its description.
"""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium import spaces

KINDS = 4
"""Of symbols."""


class Reversal(gymnasium.Env[tuple[int, int], Any]):
    """``length`` steps that show a symbol each, then as many that ask for them in reverse.

    Observations: whether it asks (0, 1), and the symbol (0 while it asks). Actions: a symbol. Rewards: ±1 / length for
    each symbol that is asked for, so that returns are from -1 to 1, and -.5 at random.
    """

    def __init__(self, length: int = 16) -> None:
        """An episode has 2 ``length`` steps.

        Raises:
            ValueError: ``length`` is below 1.
        """
        if length < 1:
            raise ValueError(f"length is {length}, expected at least 1")
        self.length = length
        self.observation_space = spaces.Tuple([spaces.Discrete(2), spaces.Discrete(KINDS)])
        self.action_space = spaces.Discrete(KINDS)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[tuple[int, int], dict[str, Any]]:
        """Draw a sequence, and show its first symbol."""
        super().reset(seed=seed)
        self._symbols = self.np_random.integers(0, KINDS, self.length)
        self._step = 0
        return (0, int(self._symbols[0])), {}

    def step(self, action: Any) -> tuple[tuple[int, int], float, bool, bool, dict[str, Any]]:
        """Answer, if it asks."""
        reward, asked = 0.0, self._step - self.length
        if asked >= 0:
            reward = (1.0 if action == self._symbols[-1 - asked] else -1.0) / self.length
        self._step += 1
        asks = self._step >= self.length
        observation = (1, 0) if asks else (0, int(self._symbols[self._step]))
        return observation, reward, self._step == 2 * self.length, False, {}


gymnasium.register("Reversal-v0", entry_point=f"{__name__}:Reversal")
