r"""What an agent's matrices do over an episode: how far they are from the slow weights, and what rates they choose.

    python -m experiments.procgen.trace_state --agent train_dir/NAME/agent --steps 1000 \
        --output experiments/procgen/state_NAME

Plays sampled episodes of the agent's games on its training levels, and groups steps by how many came before them in
their episode (0, 1-2, 3-6, 7-14, …). ``largest_shift_of_a_head`` and ``largest_factor``, by which a step multiplies a
head's matrix along its key, show how near to an explosion it is (above 1: it grows).
Writes OUTPUT.json, which ``make_page.py`` draws. For agents whose core is made of SRWM layers.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch.nn.functional import normalize

from srwm_agents import Agent, load_agent, plotting
from srwm_agents.envs import make_procgen
from srwm_agents.layers import SRWMLayer

BLOCKS = ("y", "q", "k", "beta")


class Probe:
    """Reads each SRWM layer's state and rates whenever the layer runs."""

    def __init__(self, agent: Agent) -> None:
        self.layers = [module for module in agent.modules() if isinstance(module, SRWMLayer)]
        if not self.layers:
            raise SystemExit(f"error: the agent's core is {agent.config.core!r}, which has no SRWM layers")
        self.last = [torch.zeros(0) for _ in self.layers]
        """Of each layer [B, 4, 4]: shift and rate, means over heads; largest shift and factor of a head; by block."""
        for index, layer in enumerate(self.layers):
            mix = layer.mix

            def probed(h: Any, state: Any, resets: Any, *, index=index, layer=layer, mix=mix) -> Any:
                out = mix(h, state, resets)
                _, after = out
                x = layer.heads(h)[:, 0]
                x = x.softmax(-1) if layer.input_softmax else x
                fresh = resets[:, 0, None, None, None] if resets is not None else torch.zeros(())
                _, q, k, beta = (
                    torch.einsum("bhd,bhdc->bhc", x, slow + torch.where(fresh.bool(), 0.0, shift))
                    for slow, shift in zip(layer.weights, state, strict=False)
                )
                # All [B, H, 4]; sizes of shifts are in units of their slow blocks'.
                sizes = torch.stack(
                    [
                        shift.flatten(2).norm(dim=-1) / slow.flatten(1).norm(dim=-1)
                        for shift, slow in zip(after, layer.weights, strict=False)
                    ],
                    dim=2,
                )
                rates, q, k = beta.sigmoid(), q.softmax(-1), k.softmax(-1)
                if layer.unit_keys:
                    q, k = normalize(q, dim=-1), normalize(k, dim=-1)
                factors = layer.state_decay + rates * (k * (q - k)).sum(-1, keepdim=True)
                self.last[index] = torch.stack([sizes.mean(1), rates.mean(1), sizes.amax(1), factors.amax(1)], 1)
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
        read = torch.stack(probe.last, 1)  # [B, layer, 4, 4]
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
                shift, rate, largest, factor = all_reads[:, layer, :, b].unbind(1)
                rows.append(
                    {
                        "from_step": 2**bucket - 1, "steps": len(reads), "layer": layer, "block": block,
                        "shift": round(shift.median().item(), 4), "largest_shift": round(shift.max().item(), 4),
                        "rate": round(rate.mean().item(), 4),
                        "largest_shift_of_a_head": round(largest.max().item(), 4),
                        "largest_factor": round(factor.max().item(), 4),
                    }
                )  # fmt: skip
    return {"training": agent.config.training, "core_settings": agent.config.core_settings, "rows": rows}


def draw(result: dict[str, Any], file: Path) -> None:
    """Left: the shift's size over an episode, a line a layer and block; right: the rates. All have one scale."""
    with plotting.drawing(file, plotting.PAGE_INCHES, 3.4) as figure:
        shifts, rates = figure.subplots(1, 2)
        for layer in sorted({row["layer"] for row in result["rows"]}):
            for b, block in enumerate(BLOCKS):
                rows = [row for row in result["rows"] if row["layer"] == layer and row["block"] == block]
                style = {"color": plotting.COLOURS[b], "ls": "-" if layer == 0 else "--"}
                x = [max(row["from_step"], 0.5) for row in rows]
                shifts.plot(x, [row["shift"] for row in rows], label=f"W_{block}, layer {layer + 1}", **style)
                rates.plot(x, [row["rate"] for row in rows], **style)
        shifts.set_ylabel("‖shift‖ / ‖slow weights‖, median")
        rates.set_ylabel("learning rate β, mean")
        shifts.set_yscale("log")
        shifts.set_ylim(1e-3, 2)
        rates.set_ylim(0, 1)
        for axis in (shifts, rates):
            axis.set_xscale("log", base=2)
            axis.set_xlabel("steps since the episode began")
        plotting.label_lines(shifts)


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


if __name__ == "__main__":
    main()
