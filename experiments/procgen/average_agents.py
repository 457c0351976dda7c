"""Averages the weights of agents of one run, and writes the mean in half precision.

    python -m experiments.procgen.average_agents AGENT AGENT … --output agents/procgen/srwm

The shipped SRWM is the mean of three agents of its run, which were copied while it went on (README.md says why).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from srwm_agents import load_agent, save_agent
from srwm_agents.averaging import average_agents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agents", type=Path, nargs="+", metavar="AGENT", help="portable agents, the latest last")
    parser.add_argument("--output", type=Path, required=True, help="a folder for the mean")
    args = parser.parse_args()
    agents = [load_agent(folder) for folder in args.agents]
    mean = average_agents(agents)
    frames = [agent.config.training["frames"] for agent in agents]
    mean.config = replace(mean.config, training={**mean.config.training, "mean_of_frames": frames})
    save_agent(mean, args.output, half=True)


if __name__ == "__main__":
    main()
