"""What an agent's matrices do over an episode: how far they are from the slow weights, and what rates they choose.

    python docs/results/trace_state.py --agent train_dir/NAME/agent --steps 1000 --output docs/results/procgen/state

Plays sampled episodes of the agent's games on its training levels, and groups steps by how many came before them in
their episode (0, 1-2, 3-6, 7-14, …). Writes OUTPUT.json and OUTPUT.png. For agents whose core is made of SRWM layers.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from rich.progress import track

from envs import make_procgen
from srwm_agents import Agent, load_agent
from srwm_agents.layers import SRWMLayer

BLOCKS = ("y", "q", "k", "beta")


class Probe:
    """Reads each SRWM layer's state and rates whenever the layer runs."""

    def __init__(self, agent: Agent) -> None:
        self.layers = [module for module in agent.modules() if isinstance(module, SRWMLayer)]
        if not self.layers:
            raise SystemExit(f"error: the agent's core is {agent.config.core!r}, which has no SRWM layers")
        self.last: list[dict[str, torch.Tensor]] = [{} for _ in self.layers]
        for index, layer in enumerate(self.layers):
            mix = layer.mix

            def probed(h: Any, state: Any, resets: Any, *, index=index, layer=layer, mix=mix) -> Any:
                out = mix(h, state, resets)
                _, after = out
                x = layer.heads(h)[:, 0]
                x = x.softmax(-1) if layer.input_softmax else x
                fresh = resets[:, 0, None, None, None] if resets is not None else torch.zeros(())
                w_beta = layer.w_beta + torch.where(fresh.bool(), 0.0, state[3])
                # [B]: the shift's size in units of the slow block's, mean over heads; and [B, 4] rates.
                sizes = [
                    (shift.flatten(2).norm(dim=-1) / slow.flatten(1).norm(dim=-1)).mean(1)
                    for shift, slow in zip(after, layer.weights, strict=False)
                ]
                rates = torch.einsum("bhd,bhdc->bhc", x, w_beta).sigmoid().mean(1)
                self.last[index] = {"shift": torch.stack(sizes, 1), "rate": rates}
                return out

            layer.mix = probed  # type: ignore[method-assign]


def play(agent: Agent, steps: int, seed: int) -> dict[str, Any]:
    """Means and maxima by age, layer and block."""
    torch.manual_seed(seed)
    probe = Probe(agent)
    environment = agent.config.environment
    games = environment["games"]
    number = 2 * len(games)
    levels = (environment["distribution_mode"], environment["num_levels"], environment["start_level"])
    env = make_procgen(games, number, *levels, seed=seed, last_action="last_action" in agent.config.extras)
    observation, _ = env.reset()
    state, first, age = None, np.ones(number, dtype=bool), np.zeros(number, dtype=int)
    seen: dict[int, list[torch.Tensor]] = defaultdict(list)
    for _ in track(range(steps), "playing"):
        with torch.no_grad():
            action, state = agent.act(observation, state, resets=first, deterministic=False)
        read = torch.stack(
            [torch.stack([last["shift"], last["rate"]], 1) for last in probe.last], 1
        )  # [B, layer, 2, 4]
        for i in range(number):
            seen[int(np.log2(age[i] + 1))].append(read[i])
        observation, _, terminated, truncated, _ = env.step(action)
        first = np.logical_or(terminated, truncated)
        age = np.where(first, 0, age + 1)
    env.close()
    rows = []
    for bucket, reads in sorted(seen.items()):
        all_reads = torch.stack(reads)
        for layer in range(len(probe.layers)):
            for b, block in enumerate(BLOCKS):
                shift, rate = all_reads[:, layer, 0, b], all_reads[:, layer, 1, b]
                rows.append(
                    {
                        "from_step": 2**bucket - 1, "steps": len(reads), "layer": layer, "block": block,
                        "shift": round(shift.median().item(), 4), "largest_shift": round(shift.max().item(), 4),
                        "rate": round(rate.mean().item(), 4),
                    }
                )  # fmt: skip
    return {"training": agent.config.training, "core_settings": agent.config.core_settings, "rows": rows}


def draw(result: dict[str, Any], file: Path) -> None:
    """Left: the shift's size over an episode, a line a layer and block; right: the rates."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    shifts, rates = figure.subplots(1, 2)
    for layer in sorted({row["layer"] for row in result["rows"]}):
        for b, block in enumerate(BLOCKS):
            rows = [row for row in result["rows"] if row["layer"] == layer and row["block"] == block]
            style = {"color": mpl.color_sequences["tab10"][b], "ls": "-" if layer == 0 else "--", "lw": 1.5}
            x = [max(row["from_step"], 0.5) for row in rows]
            shifts.plot(x, [row["shift"] for row in rows], label=f"W_{block}, layer {layer + 1}", **style)
            rates.plot(x, [row["rate"] for row in rows], **style)
    shifts.set_ylabel("‖shift‖ / ‖slow weights‖, median")
    rates.set_ylabel("learning rate β, mean")
    rates.set_ylim(0, 1)
    for axis in (shifts, rates):
        axis.set_xscale("log", base=2)
        axis.set_xlabel("steps since the episode began")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    shifts.legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=1000, help="of each of two environments a game")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", required=True, type=Path, help="without ending")
    args = parser.parse_args()
    result = play(load_agent(args.agent), args.steps, args.seed)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
