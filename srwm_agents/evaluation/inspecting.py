"""Play of a saved agent that is recorded for an inspection: the steps are those that an evaluation plays."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console

from srwm_agents.display import progress_bar
from srwm_agents.encoders import IMAGE_KEY
from srwm_agents.envs.added_entries import ADDED
from srwm_agents.envs.games import ACTION_NAMES
from srwm_agents.evaluation.arenas import Arena, GymnasiumArena, ProcgenArena
from srwm_agents.evaluation.playing import Play
from srwm_agents.evaluation.rollouts import Forgetful
from srwm_agents.evaluation.splits import Split
from srwm_agents.evaluation.subject import Subject
from srwm_agents.evaluation.videos import FPS
from srwm_agents.inspection import Recorder, Recording

MOST_STEPS = 5000
"""Of all tracks together: matrices and screens of all steps are kept in memory."""
SIDES = {1500: 320, MOST_STEPS: 160}
"""Largest number of steps -> height at which screens are kept, in pixels."""


def record_play(
    subject: Subject,
    args: argparse.Namespace,
    console: Console,
    stop: Callable[[], bool],
) -> Recording:
    """Play as ``eval --max_envs 1`` does with the same seed, one environment a game, and record each step.

    Args:
        subject: who plays where; the first of its splits is played.
        args: seed, policy, device, seconds, steps, forget.
        console: for progress.
        stop: asked at every step; once it is true, what has been recorded is returned.

    Raises:
        ValueError: more steps than can be kept.
        SimulatorError: the environment failed.
    """
    arena, split, agent = subject.arena, subject.splits[0], subject.agent
    assert agent is not None
    render_mode = _render_mode(arena)
    env = arena.make(1, split, args.seed, render_mode=render_mode)
    try:
        fps = float(env.metadata.get("render_fps") or FPS)
        steps = args.steps or max(1, round(args.seconds * fps))
        if steps * env.num_envs > MOST_STEPS:
            raise ValueError(
                f"{steps:,} steps of {env.num_envs} games are {steps * env.num_envs:,}, allowed: {MOST_STEPS:,}; "
                "lower --seconds or --steps, or name fewer --games"
            )
        recorder = Recorder(
            agent,
            rows=range(env.num_envs),
            names=[env.games[game] for game in env.game_index],
            max_steps=steps,
            title=f"Inside {subject.name}",
            frames_per_second=fps,
            action_names=ACTION_NAMES if isinstance(arena, ProcgenArena) else (),
        )
        side = next(side for most, side in SIDES.items() if steps * env.num_envs <= most)
        policy = Forgetful(agent) if args.forget else agent
        with recorder, progress_bar(console, "steps") as progress:
            bar = progress.add_task("playing", total=steps)
            running = Play(policy, env, seed=args.seed, deterministic=args.policy == "greedy", device=args.device)
            while not recorder.full and not stop():
                screens = _screens(env, running.observation, render_mode, side)
                numbers = _numbers(running.observation)
                rewards, infos = running.step()
                recorder.step(
                    rewards, infos["episode_ended"], actions=running.actions, screens=screens, observations=numbers
                )
                progress.advance(bar)
    finally:
        env.close()
    recorder.recording.about = _about(subject, split, args, recorder.recording, fps)
    return recorder.recording


def _render_mode(arena: Arena) -> str | None:
    """How the screen is to be had; None where the environment draws none."""
    if not isinstance(arena, GymnasiumArena):
        return "rgb_array"
    modes = arena.task.described()[3].get("render_modes") or []
    return "rgb_array" if "rgb_array" in modes else None


def _screens(env: Any, observation: Mapping[str, Any], render_mode: str | None, side: int) -> Any:
    """What is to be seen, [N] pictures: rendered, or the observation where that is an image."""
    if render_mode is not None:
        return [_at_most(frame, side) for frame in env.render()]
    image = observation.get(IMAGE_KEY)
    if image is None or image.ndim != 4 or image.dtype != np.uint8:
        return None
    channels = image[:, :3] if image.shape[1] >= 3 else image[:, :1].repeat(3, axis=1)
    return [_at_most(np.ascontiguousarray(one.transpose(1, 2, 0)), side) for one in channels]


def _at_most(frame: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """A picture no higher than ``side``."""
    if frame.shape[0] <= side:
        return frame.copy()
    size = (max(1, round(frame.shape[1] * side / frame.shape[0])), side)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX))


def _numbers(observation: Mapping[str, Any]) -> npt.NDArray[np.float32] | None:
    """The numbers that are observed, [N, K], but for what the policy itself has done; None if there are none."""
    entries = [
        np.asarray(entry, np.float32).reshape(len(entry), -1)
        for name, entry in observation.items()
        if entry.ndim <= 2 and name not in ADDED
    ]
    return np.concatenate(entries, axis=1) if entries else None


def _about(subject: Subject, split: Split, args: argparse.Namespace, recording: Recording, fps: float) -> str:
    assert subject.agent is not None
    config, layers, steps = subject.agent.config, recording.layers, len(recording.tracks[0])
    size = f"{len(layers)} layer{'s' * (len(layers) > 1)} of {layers[0].heads} heads" if layers else "no matrix"
    where = subject.arena.about
    if isinstance(subject.arena, ProcgenArena):
        where = f"{', '.join(subject.arena.games)} ({where}), levels of {split.name}"
    memory = ", memory wiped before every step" if args.forget else ""
    return (
        f"Core {config.core} ({size}); {where}; {args.policy} actions{memory}; seed {args.seed}; "
        f"{steps} steps at {fps:g} a second."
    )
