"""Videos of a policy's episodes, one tile a game."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw

from srwm_agents.envs import ProcgenVectorEnv, make_procgen
from srwm_agents.evaluation.rollouts import Policy
from srwm_agents.evaluation.splits import Split
from srwm_agents.files import write_atomically

TILE = 256
CAPTION = 18
FPS = 15


def record_video(
    file: Path,
    policy: Policy,
    games: Sequence[str],
    distribution_mode: str,
    split: Split,
    *,
    seconds: float = 20.0,
    seed: int = 0,
    deterministic: bool = False,
    last_action: bool = False,
    device: torch.device | str = "cpu",
) -> Path:
    """Play all games side by side on a split's levels and write an mp4 (H.264).

    Each tile shows the game's name, the return of the episode so far, and that of the last finished one. Returns
    ``file``; arguments as in :func:`srwm_agents.evaluation.rollouts.play_episodes`.

    Raises:
        ValueError: as :func:`srwm_agents.envs.make_procgen`.
        OSError: the file cannot be written.
    """
    env = make_procgen(
        games,
        len(games),
        distribution_mode,
        split.num_levels,
        split.start_level,
        seed,
        last_action=last_action,
        render_mode="rgb_array",
    )
    try:
        play = (env, policy, games, seconds, seed, deterministic, device)
        return write_atomically(file, lambda path: _record(path, *play))
    finally:
        env.close()


def _record(
    path: Path,
    env: ProcgenVectorEnv,
    policy: Policy,
    games: Sequence[str],
    seconds: float,
    seed: int,
    deterministic: bool,
    device: torch.device | str,
) -> None:
    generator = torch.Generator(device).manual_seed(seed)
    state = None
    observation, _ = env.reset()
    resets = np.ones(len(games), dtype=bool)
    so_far, last = np.zeros(len(games)), np.full(len(games), np.nan)
    with iio.imopen(path, "w", plugin="pyav") as writer:
        writer.init_video_stream("libx264", fps=FPS)
        for _ in range(int(seconds * FPS)):
            captions = [_caption(*row) for row in zip(games, so_far, last, strict=True)]
            writer.write_frame(_grid(env.render(), captions))
            actions, state = policy.act(
                observation, state, resets=resets, deterministic=deterministic, generator=generator
            )
            observation, _, resets, _, infos = env.step(actions)
            returns = infos["episode_return"]
            last = np.where(resets, returns, last)
            so_far = np.where(resets, 0, returns)


def _caption(game: str, so_far: float, last: float) -> str:
    return f"{game}  {so_far:.0f}" + ("" if np.isnan(last) else f"   (last {last:.0f})")


def _grid(frames: npt.NDArray[np.uint8], captions: Sequence[str]) -> npt.NDArray[np.uint8]:
    columns = min(3, len(frames))
    rows = -(-len(frames) // columns)
    canvas = Image.new("RGB", (columns * TILE, rows * (TILE + CAPTION)))
    draw = ImageDraw.Draw(canvas)
    for i, (frame, caption) in enumerate(zip(frames, captions, strict=True)):
        x, y = i % columns * TILE, i // columns * (TILE + CAPTION)
        canvas.paste(Image.fromarray(frame).resize((TILE, TILE), Image.Resampling.BILINEAR), (x, y + CAPTION))
        draw.text((x + 6, y + 3), caption, fill="white")
    return np.asarray(canvas)
