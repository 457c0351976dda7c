"""Procgen as a gymnasium vector environment: many games in one C++ simulator."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from gymnasium.error import ClosedEnvironmentError
from torch import Tensor

from srwm_agents.envs.compatibility import AUTORESET, VectorEnv, final_entries, with_masks
from srwm_agents.envs.episodes import EpisodeTracker
from srwm_agents.envs.games import IMAGE_SHAPE, NUM_ACTIONS, check_levels, check_mode, parse_games
from srwm_agents.envs.mirrors import MIRRORS, Mirrors, can_be_mirrored
from srwm_agents.envs.random_starts import RandomStarts, check_random_starts
from srwm_agents.envs.simulator import new_simulator
from srwm_agents.envs.upload import PackedUpload, Upload

Array = npt.NDArray[Any]
Observation = dict[str, Any]

_RESET_ACTION = -1  # the simulator's own request to begin a new level


class ProcgenVectorEnv(VectorEnv):
    """A gymnasium vector environment in which environment i plays ``games[i % len(games)]``.

    Observations are a dict: ``obs`` uint8 [N, 3, 64, 64]; ``last_reward`` float32 [N, 1], the reward of the step
    before, clipped to ±1, 0 at an episode's first step; with ``last_action`` also ``last_action`` float32 [N, 15],
    one-hot, zeros at an episode's first step; with ``random_starts`` also ``exploring`` float32 [N, 1], 1 where the
    next action will be replaced by a random one, so that the transition is not the policy's.

    Autoreset is same-step: where ``terminated`` is True, the observation is already the next episode's first. Procgen
    does not tell time limits from other ends of episodes, so ``truncated`` is always False.

    ``infos`` of each step: ``episode_return`` float32 [N] and ``episode_length`` int64 [N], raw return and length so
    far, both with random steps; ``episode_ended`` bool [N], True where these are final; ``level_seed``,
    ``prev_level_seed`` and ``prev_level_complete`` [N], as the simulator gives them. Beside each key gymnasium's mask
    ``_key`` [N], True everywhere. (``episode`` is the key of gymnasium's ``RecordEpisodeStatistics``.)

    ``infos`` of a step that ended episodes also have ``final_info``, this step's infos where they ended, and with
    ``device`` None ``final_obs`` (``final_observation`` in gymnasium 0.29), in the layout of the installed gymnasium.
    The simulator does not render an episode's last state, so a final ``obs`` is the frame before the last action;
    the other entries belong to the last step.

    With ``device`` None everything is NumPy; with a torch device observations, rewards and flags are tensors there.

    A seed given to ``reset`` is one number, 0 to 2**31 - 1, for all environments; a list of seeds is a ValueError,
    since the simulator has one seed. After ``close``, other methods raise gymnasium's ``ClosedEnvironmentError``.

    ``step_async`` starts the simulator's threads and returns at once; ``step_wait`` returns what ``step`` does.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15, **AUTORESET}  # noqa: RUF012 (gymnasium's convention)

    def __init__(
        self,
        games: Sequence[str],
        num_envs: int,
        *,
        simulator_options: dict[str, Any],
        device: torch.device | None,
        last_action: bool,
        random_starts: dict[str, int],
        spread_starts: int,
        mirror: bool,
        reuse_tensors: bool,
    ) -> None:
        """Use :func:`make_procgen`, which checks the arguments before C++ can abort the process."""
        self.games = list(games)
        self.game_index = np.arange(num_envs) % len(games)
        """[N], index into ``games`` of each environment's game."""
        self.device = device
        self._options = simulator_options
        self._last_action = last_action
        self._spread_starts = spread_starts
        self._mirror = mirror
        self._reuse_tensors = reuse_tensors
        single: dict[str, spaces.Space[Any]] = {
            "obs": spaces.Box(0, 255, IMAGE_SHAPE, np.uint8),
            "last_reward": spaces.Box(-1, 1, (1,), np.float32),
        }
        if last_action:
            single["last_action"] = spaces.Box(0, 1, (NUM_ACTIONS,), np.float32)
        if random_starts:
            single["exploring"] = spaces.Box(0, 1, (1,), np.float32)
        super().__init__(num_envs, spaces.Dict(single), spaces.Discrete(NUM_ACTIONS))
        self._upload: Upload | None = None
        if device is not None and device.type == "cuda":
            self._upload = Upload(device, reuse=reuse_tensors)
            self._upload_small = PackedUpload(device, reuse=reuse_tensors)
        self.render_mode = simulator_options["render_mode"]
        self._longest_start = np.array([random_starts.get(self.games[game], 0) for game in self.game_index])
        self._simulator: Any = None  # until it has started, there is nothing to close
        self._simulator = self._start()
        self._frames = np.zeros((num_envs, *IMAGE_SHAPE), np.uint8)
        self._fresh = True
        self._tracker = EpisodeTracker(num_envs)
        self._taken = np.zeros(num_envs, np.int64)

    def _start(self) -> Any:
        simulator = new_simulator(num=self.num_envs, env_name=",".join(self.games), **self._options)
        # Observations are then the simulator's own buffers, overwritten by the next step; each use below copies once.
        simulator._reuse_arrays = True
        explores = "exploring" in self.single_observation_space.spaces  # type: ignore[attr-defined]
        self._starts = RandomStarts(self._longest_start, self._options["rand_seed"]) if explores else None
        self._mirrors = Mirrors(self.games, self.game_index, self._options["rand_seed"]) if self._mirror else None
        if self._upload is not None:
            self._upload.begin(simulator._ob["rgb"])
        return simulator

    def _stop(self) -> None:
        if self._simulator is None:
            return
        if self._upload is not None:
            self._upload.end()
        self._simulator.close()

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError("the environment is closed, make a new one")

    def reset(  # type: ignore[override]  (gymnasium 0.29 lets a seed be a list, one an environment)
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin new episodes in all environments; with a seed, restart the simulator, so that runs are reproducible.

        With ``spread_starts`` they are at different times of their episodes when this returns.

        Raises:
            ValueError: a seed that is not one number from 0 to 2**31 - 1.
            ClosedEnvironmentError: after ``close``.
        """
        self._check_open()
        if seed is not None and check_seed(seed) != (self._options["rand_seed"] if self._fresh else None):
            self._options["rand_seed"] = check_seed(seed)
            self._stop()
            self._simulator = self._start()
        elif not self._fresh:
            self._act(np.full(self.num_envs, _RESET_ACTION))
            self._begin(np.ones(self.num_envs, bool))
        self._fresh = False
        self._tracker.restart()
        self._spread_episodes()
        _, observed, _ = self._simulator.observe()
        nothing = np.zeros(self.num_envs, dtype=np.float32)
        everywhere = np.ones(self.num_envs, dtype=bool)
        extras = self._extras(nothing, np.zeros(self.num_envs, np.int64), everywhere)
        return self._observation(observed["rgb"], extras, {}), {}

    def _spread_episodes(self) -> None:
        """Take ``spread_starts`` random steps, of which each environment begins a new level at one drawn at random."""
        if not self._spread_starts:
            return
        generator = np.random.default_rng(self._options["rand_seed"])
        cut = generator.integers(self._spread_starts, size=self.num_envs)
        for step in range(self._spread_starts):
            actions = generator.integers(NUM_ACTIONS, size=self.num_envs)
            self._act(np.where(cut == step, _RESET_ACTION, actions))
            rewards, _, first = self._simulator.observe()
            self._tracker.step(rewards, first)
            self._begin(first)

    def _begin(self, first: Array) -> None:
        """New episodes begin where ``first`` [N] is True."""
        if self._starts is not None:
            self._starts.restart(first)
        if self._mirrors is not None:
            self._mirrors.restart(first)

    def step_async(self, actions: Array | Tensor | Sequence[int]) -> None:
        """Begin one step of all environments on the simulator's threads, and return at once.

        Raises:
            ValueError: the wrong number of actions, or one that is not a whole number or outside 0..14.
            ClosedEnvironmentError: after ``close``.
        """
        self._check_open()
        taken = np.asarray(actions.cpu() if isinstance(actions, Tensor) else actions)
        if taken.shape != (self.num_envs,):
            raise ValueError(f"actions have shape {list(taken.shape)}, expected [{self.num_envs}]")
        if taken.dtype.kind not in "iu":
            raise ValueError(f"actions are of type {taken.dtype}, e.g. {taken[0]}, expected whole numbers from 0 to 14")
        if taken.min() < 0 or taken.max() >= NUM_ACTIONS:
            raise ValueError(f"an action is {taken.min() if taken.min() < 0 else taken.max()}, allowed: 0 to 14")
        self._fresh = False
        if self._starts is not None:
            taken = self._starts.replace(taken)
        self._taken = taken
        self._act(taken if self._mirrors is None else self._mirrors.actions(taken))

    def _act(self, actions: Array) -> None:
        if self._upload is not None:
            self._upload.wait()  # the simulator is about to overwrite the frames that are being copied
        self._simulator.act(actions)

    def step_wait(self, **kwargs: Any) -> tuple[Observation, Any, Any, Any, dict[str, Any]]:
        """Wait for the step that ``step_async`` began, and return what ``step`` does."""
        rewards, observed, first = self._simulator.observe()
        rewards, first = rewards.copy(), first.copy()
        ends = bool(first.any())
        final = self._final_observations(rewards) if ends and self.device is None else None
        self._begin(first)
        returns, lengths = self._tracker.step(rewards, first)
        info = {"episode_return": returns, "episode_length": lengths, "episode_ended": first, **self._simulator_info()}
        infos: dict[str, Any] = with_masks(info, np.ones(self.num_envs, bool))
        if ends:
            infos |= final_entries(info, first, final)
        flags = {"rewards": rewards, "terminated": first, "truncated": np.zeros_like(first)}
        observation = self._observation(observed["rgb"], self._extras(rewards, self._taken, first), flags)
        return observation, flags["rewards"], flags["terminated"], flags["truncated"], infos

    def _final_observations(self, rewards: Array) -> Observation:
        return {"obs": self._frames, **self._extras(rewards, self._taken, np.zeros(self.num_envs, bool))}

    def _simulator_info(self) -> dict[str, Array]:
        # gym3's public interface returns one dict an environment; these are the arrays behind it.
        raw = self._simulator._info
        return {name: raw[name].copy() for name in ("level_seed", "prev_level_seed", "prev_level_complete")}

    def render(self) -> Array:
        """Frames [N, 512, 512, 3] uint8; needs ``render_mode="rgb_array"``."""
        self._check_open()
        if self.render_mode is None:
            raise ValueError('render() needs make_procgen(..., render_mode="rgb_array")')
        return np.stack([info["rgb"] for info in self._simulator.get_info()])

    def close_extras(self, **kwargs: Any) -> None:
        """Free the simulator's threads and buffers."""
        self._stop()

    def _observation(self, rgb: Array, extras: dict[str, Array], flags: dict[str, Any]) -> Observation:
        """The observation as :attr:`device` wants it; ``flags`` are replaced by what they are there."""
        if self._mirrors is not None and self._upload is None:
            rgb = self._mirrors.mirrored(rgb)
        if self.device is None:
            self._frames = np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))
            return {"obs": self._frames, **extras}
        # Before the image, whose upload marks the time at which both are done.
        mirrors = {} if self._mirrors is None else {"mirrors": self._mirrors.images}
        small = self._tensors({**extras, **flags, **mirrors})
        flags.update((name, small.pop(name)) for name in flags)
        return {"obs": self._image(rgb, small.pop("mirrors", None)), **small}

    def _extras(self, rewards: Array, actions: Array, first: Array) -> dict[str, Array]:
        extras = {"last_reward": np.where(first, 0, np.clip(rewards, -1, 1)).astype(np.float32)[:, None]}
        if self._last_action:
            one_hot = np.zeros((self.num_envs, NUM_ACTIONS), dtype=np.float32)
            one_hot[np.arange(self.num_envs), actions] = ~first
            extras["last_action"] = one_hot
        if self._starts is not None:
            extras["exploring"] = self._starts.exploring.astype(np.float32)[:, None]
        return extras

    def _image(self, rgb: Array, mirrors: Tensor | None) -> Tensor:
        # Copied in the simulator's layout; transposed on the device.
        frames = torch.from_numpy(rgb).to(self.device) if self._upload is None else self._upload.frames()
        if self._mirrors is not None and self._upload is not None:
            assert mirrors is not None
            frames = self._mirrors.mirrored_on_device(frames, mirrors)
        channels_first = frames.permute(0, 3, 1, 2)
        return channels_first if self._reuse_tensors else channels_first.contiguous()

    def _tensors(self, arrays: dict[str, Array]) -> dict[str, Tensor]:
        assert self.device is not None
        if self._upload is not None:
            return self._upload_small(arrays)
        return {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}


def check_seed(seed: Any) -> int:
    """Return a seed in the simulator's range, 0 to 2**31 - 1; ``ValueError`` for any other, or for several."""
    try:
        number = operator.index(seed)
    except TypeError as error:
        raise ValueError(
            f"seed is {seed!r}, allowed: one number from 0 to {2**31 - 1}, for all environments together"
        ) from error
    if not 0 <= number < 2**31:
        raise ValueError(f"seed is {seed}, allowed: 0 to {2**31 - 1}")
    return number


def make_procgen(
    games: str | Sequence[str],
    num_envs: int,
    distribution_mode: str = "easy",
    num_levels: int = 0,
    start_level: int = 0,
    seed: int | None = None,
    *,
    num_threads: int | None = None,
    device: torch.device | str | None = None,
    last_action: bool = False,
    random_starts: dict[str, int] | None = None,
    spread_starts: int = 0,
    mirror: bool = False,
    reuse_tensors: bool = False,
    render_mode: str | None = None,
    use_backgrounds: bool = True,
    restrict_themes: bool = False,
    use_monochrome_assets: bool = False,
    center_agent: bool = True,
) -> ProcgenVectorEnv:
    """Make one C++ vector environment for all ``games``; environment i plays game i mod len(games).

    Args:
        games: names, as a sequence or "bigfish,maze".
        num_envs: environments in all; a multiple of the number of games.
        distribution_mode: "easy" | "hard" | "extreme" | "memory" | "exploration"; every game must have it.
        num_levels: number of levels; 0: unbounded.
        start_level: the first level's seed.
        seed: of the choice of levels and of random starts, 0 to 2**31 - 1; None for a random one.
        num_threads: C++ threads beside the caller's; 0 runs in the caller's; None: the number of CPUs, at most 4.
        device: None for NumPy; a torch device for tensors there.
        last_action: add the last action, one-hot, to the observation.
        random_starts: the largest number of random actions at the beginning of an episode, by game, as {"maze": 100}
            (``srwm_agents.envs.random_starts``); adds ``exploring`` to the observation. None: no random actions.
        spread_starts: ``reset`` takes so many random steps before it returns, and each environment begins a new level
            at one of them: else all are at the same time of an episode for long, and so is what is learned from at
            once. The first returns and lengths include steps of these. 0: none.
        mirror: play each episode in a mirror image of its level, drawn at random from those that the game's rules do
            not tell apart (``srwm_agents.envs.mirrors.MIRRORS``); actions are those of the image. ``render()`` is not
            mirrored.
        reuse_tensors: give the same tensors at every step, each overwritten by the next step, ``obs`` as a view that is
            not contiguous: for callers that capture what they do with them in a CUDA graph. Needs a CUDA ``device``.
        render_mode: "rgb_array" allows ``render()`` and makes steps slower; None.
        use_backgrounds, restrict_themes, use_monochrome_assets, center_agent: as in Procgen.

    Raises:
        ValueError: a wrong game, mode, level range, number or seed, with what is allowed.
        SimulatorError: Procgen cannot start here.
    """
    names = parse_games(games)
    check_mode(names, distribution_mode)
    check_levels(num_levels, start_level)
    check_random_starts(random_starts or {}, names)
    if num_envs < 1 or num_envs % len(names):
        raise ValueError(f"num_envs is {num_envs}, expected a positive multiple of {len(names)} (the number of games)")
    if mirror and not can_be_mirrored(names):
        raise ValueError(f"mirror is True, but games are {', '.join(names)}; expected one of {', '.join(MIRRORS)}")
    if spread_starts < 0:
        raise ValueError(f"spread_starts is {spread_starts}, expected at least 0")
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode is {render_mode!r}, allowed: None, 'rgb_array'")
    if num_threads is None:
        num_threads = min(4, os.cpu_count() or 1)
    if num_threads < 0:
        raise ValueError(f"num_threads is {num_threads}, expected at least 0")
    if distribution_mode == "exploration" and len(names) > 1:
        raise ValueError("distribution_mode 'exploration' has one fixed level a game: name one game")
    where = None if device is None else torch.device(device)
    if reuse_tensors and (where is None or where.type != "cuda"):
        raise ValueError(f"reuse_tensors is True, but device is {device!r}, expected a CUDA device")
    options = {
        "rand_seed": check_seed(int(np.random.default_rng().integers(2**31)) if seed is None else seed),
        "num_threads": num_threads,
        "render_mode": render_mode,
        "distribution_mode": distribution_mode,
        "use_backgrounds": use_backgrounds,
        "restrict_themes": restrict_themes,
        "use_monochrome_assets": use_monochrome_assets,
        "center_agent": center_agent,
    }
    if distribution_mode != "exploration":  # it has one fixed level and refuses these options
        options |= {"num_levels": num_levels, "start_level": start_level}
    return ProcgenVectorEnv(
        names,
        num_envs,
        simulator_options=options,
        device=where,
        last_action=last_action,
        random_starts=random_starts or {},
        spread_starts=spread_starts,
        mirror=mirror,
        reuse_tensors=reuse_tensors,
    )
