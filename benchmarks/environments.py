"""Steps per second of a Gymnasium environment's vector, without an agent.

    python benchmarks/environments.py --env popgym:popgym-RepeatPreviousEasy-v0 --processes 0,1,2

Random actions, drawn before the clock starts. Prints the median of five runs of --seconds, and the slowest and fastest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from srwm_agents.envs.gymnasium_vector import make_gymnasium
from srwm_agents.machine import available_cores

RUNS = 5


def steps_per_second(env: str, kwargs: dict[str, object], num_envs: int, processes: int, seconds: float) -> list[float]:
    """Steps a second of each of five runs, one after another in the same environments."""
    vector = make_gymnasium(env, num_envs, 0, kwargs=kwargs, processes=processes, last_action=True, last_reward=True)
    vector.reset()
    actions = [vector.action_space.sample() for _ in range(16)]
    rates = []
    for _ in range(RUNS):
        began, turns = time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < seconds:
            vector.step(actions[turns % len(actions)])
            turns += 1
        rates.append(turns * num_envs / passed)
    vector.close()
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="CartPole-v1", help="id (default: %(default)s)")
    parser.add_argument("--env_kwargs", type=json.loads, default={}, help="JSON")
    parser.add_argument("--num_envs", type=int, default=512, help="(default: %(default)s)")
    parser.add_argument("--processes", default=f"0,{available_cores()}", help="comma-separated (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run (default: %(default)s)")
    args = parser.parse_args()
    for processes in map(int, args.processes.split(",")):
        rates = steps_per_second(args.env, args.env_kwargs, args.num_envs, processes, args.seconds)
        print(
            f"{args.env}, {args.num_envs} environments, {processes} processes: {statistics.median(rates):,.0f} steps/s "
            f"({min(rates):,.0f} to {max(rates):,.0f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
