"""Where an SRWM reads: how well each step's input fits the key of each earlier step, in a trained agent's heads.

    python -m experiments.popgym.addresses --agent train_dir/popgym/srwm_s1/AutoencodeEasy/agent    # plays and records
    python -m experiments.popgym.addresses                                                          # draws

A head's output is y_t = W_t x_t, and step s has added a multiple of rate_s * outer(k_s, what it wrote) to W. So
rate_s * <x_t, k_s> says how much of what was written at s is read at t, as long as nothing was written over it since.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments import pages
from experiments.runs import write_compressed
from srwm_agents import Agent, load_agent, plotting
from srwm_agents.envs.added_entries import ADDED
from srwm_agents.envs.gymnasium_vector import make_gymnasium
from srwm_agents.layers import SRWMLayer

FOLDER = Path(__file__).parent / "addresses"
PICTURE = pages.PICTURES / "memory" / "addresses.png"
EPISODES = 50
BLOCKS = ("outputs", "queries", "keys", "rates")
"""What an SRWM's four learning rates rewrite."""


class Heard:
    """What an SRWM layer reads and writes at each step, for as many steps as it is called for."""

    def __init__(self, layer: SRWMLayer) -> None:
        self.inputs: list[Tensor] = []
        self.keys: list[Tensor] = []
        self.rates: list[Tensor] = []
        layer.register_forward_pre_hook(self._hear)

    def _hear(self, layer: Any, arguments: tuple[Tensor, tuple[Tensor, ...], Tensor | None]) -> None:
        h, state, resets = arguments
        chosen = layer.choices(h, state, resets)
        self.inputs.append(layer._inputs(layer.norm(h))[:, 0])
        self.keys.append(chosen["k"])
        self.rates.append(chosen["b"])

    def matches(self) -> Tensor:
        """Means over episodes of rate_s * <x_t, k_s>, [H, T, T] by t and s; 0 where s is not before t."""
        x, k, rates = (torch.stack(parts) for parts in (self.inputs, self.keys, self.rates))
        return torch.einsum("tnhd,snhd,snh->hts", x, k, rates[..., 0]).div(x.shape[1]).tril(-1)


@torch.no_grad()
def record(agent: Agent, layer: int = 0, head: int = 0, episodes: int = EPISODES, seed: int = 1) -> None:
    """Play episodes of one length side by side; write one head's ``matches.csv.xz``, and all heads' ``rates.csv``."""
    layers = [layer for layer in agent.core.memory_layers if isinstance(layer, SRWMLayer)]
    heard = [Heard(layer) for layer in layers]
    played = agent.config.environment
    added: dict[str, Any] = {name: name in agent.config.extras for name in ADDED}
    env = make_gymnasium(played["env"], episodes, seed, kwargs=played["env_kwargs"], **added)
    observation, _ = env.reset()
    state, starts, ended = agent.initial_state(episodes), np.ones(episodes, bool), np.zeros(episodes, bool)
    returns = np.zeros(episodes)
    while not ended.any():
        actions, state = agent.act(observation, state, resets=starts)
        observation, rewards, terminated, truncated, _ = env.step(actions)
        starts, ended, returns = np.zeros(episodes, bool), terminated | truncated, returns + rewards
    assert ended.all(), "episodes must have one length"
    rates = [part for layer in heard for part in torch.stack(layer.rates).mean((0, 1))]
    rows = [
        (i // agent.core.config.num_heads, i % agent.core.config.num_heads, *r.tolist()) for i, r in enumerate(rates)
    ]
    FOLDER.mkdir(exist_ok=True)
    pd.DataFrame(rows, columns=["layer", "head", *BLOCKS]).round(3).to_csv(FOLDER / "rates.csv", index=False)
    matrix = heard[layer].matches()[head].numpy()
    read, written = np.tril_indices(len(matrix), -1)
    about = {"layer": layer, "head": head, "read": read, "written": written, "match": matrix[read, written].round(2)}
    write_compressed(FOLDER / "matches.csv.xz", pd.DataFrame(about).to_csv(index=False))
    print(f"{episodes} episodes of {len(heard[0].inputs)} steps, mean return {returns.mean():.3f}")


def draw() -> None:
    """The recorded head's matches on the left, all heads' mean rates on the right."""
    one, rates = pd.read_csv(FOLDER / "matches.csv.xz"), pd.read_csv(FOLDER / "rates.csv")
    layer, head = int(one["layer"].iloc[0]), int(one["head"].iloc[0])
    steps = int(one["read"].max()) + 1
    matrix = np.full((steps, steps), np.nan)
    matrix[one["read"], one["written"]] = one["match"]
    with plotting.drawing(PICTURE, plotting.PAGE_INCHES, 3.9) as figure:
        left, right = figure.subplots(1, 2)
        limit = np.nanmax(np.abs(matrix))
        shown = left.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        figure.colorbar(shown, ax=left, shrink=0.7, label="match of read and write")
        left.set(
            title=f"Layer {layer + 1}, head {head + 1}",
            xlabel="step when it was written",
            ylabel="step when it is read",
        )
        left.grid(visible=False)
        places = np.arange(len(rates))
        for i, block in enumerate(BLOCKS):
            right.plot(rates[block], places, "os^D"[i], label=block)
        names = zip(rates["layer"] + 1, rates["head"] + 1, strict=True)
        right.set_yticks(places, [f"layer {layer}, head {head}" for layer, head in names])
        right.invert_yaxis()
        right.set(title="How much a step rewrites", xlabel="mean learning rate", xlim=(0, 1))
        right.axvline(
            1 / (1 + np.exp(3)), color=plotting.INK, linestyle=":", linewidth=1, label="all but outputs, at first"
        )
        figure.legend(loc="outside lower right", ncols=3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Record if an agent is named, and draw; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", type=Path, help="folder of an SRWM agent, which plays and is recorded")
    args = parser.parse_args(arguments)
    if args.agent is not None:
        record(load_agent(args.agent))
    draw()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
