"""Videos of a policy's episodes, one tile a game."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw

from srwm_agents.evaluation.arenas import Arena, ProcgenArena
from srwm_agents.evaluation.playing import Play, Policy
from srwm_agents.evaluation.splits import Split
from srwm_agents.files import write_atomically

TILE = 256
"""Height of a tile in pixels; its width follows from the picture."""
TILES = 3
"""Of a single task."""
CAPTION = 18
FPS = 15
"""Pictures a second, where the environment does not say."""


def record_video(
    file: Path,
    policy: Policy,
    arena: Arena,
    split: Split,
    *,
    seconds: float = 20.0,
    seed: int = 0,
    deterministic: bool = False,
    device: torch.device | str = "cpu",
) -> Path:
    """Play all of an arena's games side by side on a split's levels and write an mp4 (H.264).

    A single task is played several times side by side. Each tile shows the game's name, the return of the episode so
    far, and that of the last finished one. Returns ``file``; arguments as in
    :func:`srwm_agents.evaluation.rollouts.play`.

    Raises:
        ValueError: as the arena's vectors.
        OSError: the file cannot be written.
    """
    each = 1 if isinstance(arena, ProcgenArena) else TILES
    env = arena.make(each, split, seed, render_mode="rgb_array")
    try:
        return write_atomically(file, lambda path: _record(path, env, policy, seconds, seed, deterministic, device))
    finally:
        env.close()


def _record(
    path: Path,
    env: Any,
    policy: Policy,
    seconds: float,
    seed: int,
    deterministic: bool,
    device: torch.device | str,
) -> None:
    running = Play(policy, env, seed=seed, deterministic=deterministic, device=device)
    so_far, last = np.zeros(env.num_envs), np.full(env.num_envs, np.nan)
    games = [env.games[game] for game in env.game_index]
    fps = round(env.metadata.get("render_fps", FPS))
    with iio.imopen(path, "w", plugin="pyav") as writer:
        writer.init_video_stream("libx264", fps=fps)
        for _ in range(int(seconds * fps)):
            captions = [_caption(*row) for row in zip(games, so_far, last, strict=True)]
            writer.write_frame(_grid(env.render(), captions))
            _, infos = running.step()
            resets, returns = infos["episode_ended"], infos["episode_return"]
            last = np.where(resets, returns, last)
            so_far = np.where(resets, 0, returns)


def _caption(game: str, so_far: float, last: float) -> str:
    return f"{game}  {so_far:.0f}" + ("" if np.isnan(last) else f"   (last {last:.0f})")


def _grid(frames: Sequence[npt.NDArray[np.uint8]], captions: Sequence[str]) -> npt.NDArray[np.uint8]:
    columns = min(3, len(frames))
    rows = -(-len(frames) // columns)
    height, width = frames[0].shape[:2]
    across = 2 * round(TILE * width / height / 2)  # the codec wants even numbers
    canvas = Image.new("RGB", (columns * across, rows * (TILE + CAPTION)))
    draw = ImageDraw.Draw(canvas)
    for i, (frame, caption) in enumerate(zip(frames, captions, strict=True)):
        x, y = i % columns * across, i // columns * (TILE + CAPTION)
        canvas.paste(Image.fromarray(frame).resize((across, TILE), Image.Resampling.BILINEAR), (x, y + CAPTION))
        draw.text((x + 6, y + 3), caption, fill="white")
    return np.asarray(canvas)
