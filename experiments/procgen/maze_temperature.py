r"""How a saved agent fails in mazes that it has not seen: what it solves by a number of steps, at several temperatures.

    python -m experiments.procgen.maze_temperature --agent agents/procgen/srwm \
        --output experiments/procgen/maze_NAME.json

Sampled actions on levels 500-699, the policy's logits divided by a temperature; "random" is the uniform policy. Writes
for each the share of all episodes that are solved within so many steps.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from srwm_agents import load_agent
from srwm_agents.evaluation.rollouts import Policy, RandomPolicy, play_episodes
from srwm_agents.evaluation.splits import make_splits

STEPS = (10, 20, 40, 80, 160, 320, 500)
TEMPERATURES = (1.0, 2.0, 4.0)


def at_temperature(folder: Path, temperature: float) -> Policy:
    """The agent with its logits divided by ``temperature``."""
    agent = load_agent(folder)
    with torch.no_grad():
        agent.policy_head.weight.div_(temperature)
        agent.policy_head.bias.div_(temperature)
    return agent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", type=Path, required=True, help="a portable agent's folder")
    parser.add_argument("--episodes", type=int, default=200, help="of each policy (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="a JSON file")
    args = parser.parse_args()
    (levels,) = make_splits(["validation"], {})
    policies = {f"temperature {t:g}": at_temperature(args.agent, t) for t in TEMPERATURES} | {"random": RandomPolicy()}
    solved: dict[str, list[float]] = {}
    for name, policy in policies.items():
        episodes = play_episodes(policy, ["maze"], "easy", levels, episodes=args.episodes, max_envs=100)
        won = episodes["return"] > 0
        solved[name] = [float((won & (episodes["length"] <= steps)).mean()) for steps in STEPS]
        print(f"{name:15}", *(f"{share:.3f}" for share in solved[name]))
    args.output.write_text(json.dumps({"steps": STEPS, "episodes": args.episodes, "solved": solved}, indent=1) + "\n")


if __name__ == "__main__":
    main()
