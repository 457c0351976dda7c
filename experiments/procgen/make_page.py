"""Makes the tables and pictures of docs/results/procgen.md, README.md and RUNS.md from the runs in this folder.

    python -m experiments.procgen.make_page
    python -m experiments.procgen.make_page --check

``data.py`` says what lies there. The cards of the agents that are shipped are written beside them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pandas as pd

from experiments import pages
from experiments.procgen.data import (
    AVERAGED,
    CORES,
    HERE,
    POLICIES,
    PRESET,
    RANDOM,
    RANDOM_MEMORY,
    SECOND_SEEDS,
    Run,
    random_episodes,
    runs,
)
from experiments.procgen.pictures import draw_curves, draw_scores
from experiments.procgen.trace_state import draw as draw_state
from experiments.procgen.train import AGENTS, SHIPPED
from srwm_agents.envs import MEMORY_GAMES, PAPER_GAMES
from srwm_agents.evaluation.statistics import aggregate, unseen

SCRIPT = "experiments.procgen.make_page"
PICTURES = pages.PICTURES / "procgen"
MARKS = (4e6, 7e6, 10e6, 20e6, 35e6, 47e6, 58e6, 70e6, 90e6, 115e6, 150e6, 180e6, 240e6, 300e6)
"""Frames at which runs are compared."""
MEMORY_MARKS = (10e6, 19e6, 40e6, 60e6, 80e6)
"""The same in memory mode."""
COMPARED = 7e6
"""Frames from which a window has rows enough for an interval."""
PAIRS = {
    "as published, with a decay": ("decay_95", CORES["LSTM"]),
    "seed 1": (CORES["SRWM"], CORES["LSTM"]),
    "seed 2": (SECOND_SEEDS["SRWM, seed 2"], SECOND_SEEDS["LSTM, seed 2"]),
}
"""Runs of an SRWM and of an LSTM that are compared at equal frames."""
RESULTS = dict(sorted({**PRESET, **CORES, **SECOND_SEEDS}.items(), key=lambda agent: "preset" not in agent[0]))
"""Agents whose scores stand on README.md, those of the preset first."""
MAZE_FILES = {
    "SRWM, 300M": "maze_300M.json",
    "preset six_games, 120M": "maze_six_games.json",
    "preset six_games, seed 2, averaged": "maze_averaged.json",
}
"""Agents whose mazes were looked at, and what ``maze_temperature.py`` wrote of them."""
PAGES = (pages.DOCS / "results" / "procgen.md", HERE / "README.md", HERE / "RUNS.md")
STATES = ("plain", "decay", "no_softmax", "unit_keys")
"""Agents whose matrices were looked at by ``trace_state.py``."""
STEPS = {
    "as before (seed 2)": SECOND_SEEDS["SRWM, seed 2"],
    "queries and keys of length 1 (`--unit_keys`)": "unit_keys",
    "and far horizons (gamma .999 in maze and leaper, .997 in plunder), and random starts in maze": (
        "unit_keys_far_starts"
    ),
    "and a critic with an encoder of its own": PRESET["SRWM, preset six_games"],
}
"""What leads from the settings before to the preset, step by step."""
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
"""Scores on training levels whose time is told."""


def training_table(found: list[Run], marks: Sequence[float] = MARKS) -> Iterator[str]:
    """Scores on training levels, at every mark that a run has reached."""
    for mark in marks:
        rows = [(run, at) for run in found if (at := run.at(mark)) is not None]
        if not rows:
            continue
        games = [game for game in rows[0][1].index if game != "normalised"]
        yield f"**After {mark / 1e6:.0f}M frames**\n"
        yield f"| run | seed | {' | '.join(games)} | normalised |"
        yield "|---" * (len(games) + 3) + "|"
        for run, at in sorted(rows, key=lambda row: -row[1]["normalised"]):
            returns = " | ".join(f"{at[game]:.2f}" for game in games)
            yield f"| {run.name} | {run.config['seed']} | {returns} | {at['normalised']:.3f} |"
        yield ""


def time_table(found: list[Run]) -> Iterator[str]:
    """When long runs first were at a score on training levels."""
    yield f"| run | {' | '.join(f'{threshold:.2f}' for threshold in THRESHOLDS)} |"
    yield "|---" * (len(THRESHOLDS) + 1) + "|"
    for run in found:
        if run.long and run.whole:
            curve = run.smooth()
            cells = []
            for threshold in THRESHOLDS:
                reached = curve[curve >= threshold]
                if reached.empty:
                    cells.append("–")
                else:
                    frames, seconds = reached.index[0]
                    cells.append(f"{frames / 1e6:.0f}M, {seconds:.0f} s")
            yield f"| {run.name} | {' | '.join(cells)} |"
    yield ""


def interval(episodes: pd.DataFrame) -> str:
    """The normalised mean over games of one range, with its interval; a dash if there are no episodes."""
    if episodes.empty:
        return "–"
    row = aggregate(episodes).iloc[0]
    return f"{row['mean']:.3f} ({row['mean_low']:.3f} to {row['mean_high']:.3f})"


def result_table(shown: dict[str, Run]) -> Iterator[str]:
    """Normalised scores of each run's last agent."""
    columns = ("training levels", "validation", "unseen", "unseen, greedy", "training levels, memory wiped")
    yield f"| agent | million frames | {' | '.join(columns)} |"
    yield "|---" * (len(columns) + 2) + "|"
    for name, run in shown.items():
        by_policy = {evaluation.policy: evaluation.episodes for evaluation in run.evaluations}
        nothing = next(iter(by_policy.values())).iloc[:0]
        sampled, greedy, wiped = (by_policy.get(policy, nothing) for policy in POLICIES)
        cells = [
            *(interval(sampled[sampled["split"] == split]) for split in ("train", "validation")),
            *(interval(unseen(episodes)) for episodes in (sampled, greedy)),
            interval(wiped),
        ]
        yield f"| {name} | {run.evaluations[0].millions} | {' | '.join(cells)} |"
    yield ""


def game_table(shown: dict[str, Run], games: Sequence[str], random: pd.DataFrame) -> Iterator[str]:
    """Mean returns of each run's last agent a game, and their normalised mean; sampled actions."""
    yield f"| agent | levels | {' | '.join(games)} | normalised |"
    yield "|---" * (len(games) + 3) + "|"
    episodes_of = {
        f"{name}, {run.evaluations[0].millions}M": next(e.episodes for e in run.evaluations if e.policy == "sampled")
        for name, run in shown.items()
    }
    for name, episodes in (episodes_of | {"random policy": random}).items():
        ranges = {split: episodes[episodes["split"] == split] for split in ("train", "validation")}
        for levels, part in (ranges | {"unseen": unseen(episodes)}).items():
            if len(part):
                returns = part.groupby("game")["return"].mean()
                cells = " | ".join(f"{returns[game]:.1f}" for game in games)
                yield f"| {name} | {levels} | {cells} | {interval(part)} |"
    yield ""


def one_game_table(shown: list[Run]) -> Iterator[str]:
    """Mean returns of agents of a single game."""
    yield "| run | million frames | training levels | validation |"
    yield "|---" * 4 + "|"
    for run in shown:
        for evaluation in run.evaluations:
            rows = evaluation.games.set_index("split")
            cells = (
                f"{row['return']:.2f} ({row['return_low']:.2f} to {row['return_high']:.2f})"
                for row in rows.loc[["train", "validation"]].to_dict("records")
            )
            yield f"| {run.name} | {evaluation.millions} | {' | '.join(cells)} |"
    yield ""


def step_table(steps: dict[str, Run]) -> Iterator[str]:
    """Scores of full-precision agents after each of the steps to the preset, and returns on unseen levels."""
    games = ("bigfish", "fruitbot", "maze", "leaper")
    yield f"| settings | million frames | training levels | validation | unseen | of these: {' | '.join(games)} |"
    yield "|---" * (len(games) + 5) + "|"
    for name, run in steps.items():
        # An agent that was shipped has been evaluated in half precision since.
        full = [evaluation for evaluation in run.earlier if evaluation.millions.endswith("full precision")]
        evaluation = (full or run.evaluations)[-1]
        episodes = evaluation.episodes
        ranges = [episodes[episodes["split"] == split] for split in ("train", "validation")] + [unseen(episodes)]
        returns = ranges[-1].groupby("game")["return"].mean()
        cells = [*map(interval, ranges), *(f"{returns[game]:.1f}" for game in games)]
        yield f"| {name} | {evaluation.millions.partition(',')[0]} | {' | '.join(cells)} |"
    yield ""


def core_table(by_core: dict[str, Run]) -> Iterator[str]:
    """Scores on training levels of runs that differ in their core, with the half-widths of 95 % intervals."""
    marks = [mark for mark in MARKS if mark >= 20e6]
    yield f"| core | {' | '.join(f'{mark / 1e6:.0f}M' for mark in marks)} |"
    yield "|---" * (len(marks) + 1) + "|"
    for name, run in by_core.items():
        windows = [run.window(mark) for mark in marks]
        cells = ("–" if part is None else f"{mean_score(part):.3f} ± {1.96 * error_of(part):.3f}" for part in windows)
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def mean_score(part: pd.DataFrame) -> float:
    """The normalised mean over games of a window's rows."""
    return part.groupby("game")["normalised_score"].mean().mean()


def error_of(part: pd.DataFrame) -> float:
    """Its standard error. Rows of a game are means over its latest 100 episodes: they scatter as such means do."""
    return (part.groupby("game")["normalised_score"].sem() ** 2).sum() ** 0.5 / part["game"].nunique()


def difference_table(pairs: dict[str, tuple[Run, Run]]) -> Iterator[str]:
    """SRWM less LSTM at equal frames, training levels."""
    yield "| runs | million frames | SRWM | LSTM | difference | 95 % interval |"
    yield "|---" * 6 + "|"
    for name, pair in pairs.items():
        for mark in (mark for mark in MARKS if mark >= COMPARED):
            parts = [part for run in pair if (part := run.window(mark)) is not None]
            if len(parts) < 2:
                continue
            means = [mean_score(part) for part in parts]
            half = 1.96 * sum(error_of(part) ** 2 for part in parts) ** 0.5
            difference = means[0] - means[1]
            yield (
                f"| {name} | {mark / 1e6:.0f} | {means[0]:.3f} | {means[1]:.3f} | {difference:+.3f} "
                f"| {difference - half:+.3f} to {difference + half:+.3f} |"
            )
    yield ""


def evaluation_table(found: list[Run]) -> Iterator[str]:
    """Normalised scores of saved agents and of a random policy over the games, by policy and range of levels."""
    yield "| run | million frames | actions | levels | mean | 95 % interval | IQM | 95 % interval | episodes a game |"
    yield "|---" * 9 + "|"
    tables = [
        (f"{run.name} | {evaluation.millions}{mark} | {evaluation.policy}", evaluation.episodes)
        for run in found
        for mark, of_agent in (("", run.earlier), ("", run.evaluations), (AVERAGED, run.averaged))
        for evaluation in of_agent
    ]
    for name, episodes in [("random policy | – | –", random_episodes(RANDOM)), *tables]:
        for row in aggregate(pd.concat([episodes, unseen(episodes)])).to_dict("records"):
            yield (
                f"| {name} | {row['split']} | {row['mean']:.3f} | {row['mean_low']:.3f} to {row['mean_high']:.3f} "
                f"| {row['iqm']:.3f} | {row['iqm_low']:.3f} to {row['iqm_high']:.3f} "
                f"| {row['episodes'] // row['games']:,} |"
            )
    yield ""


def gap_table(shown: list[Run]) -> Iterator[str]:
    """Normalised score of each game on training levels and on the validation range, sampled actions."""
    yield f"| run | million frames | levels | {' | '.join(PAPER_GAMES)} | mean |"
    yield "|---" * (len(PAPER_GAMES) + 4) + "|"
    for run in shown:
        for evaluation in run.evaluations:
            if evaluation.policy != "sampled":
                continue
            for split in ("train", "validation"):
                rows = evaluation.games[evaluation.games["split"] == split].set_index("game")["normalised_score"]
                cells = " | ".join(f"{rows[game]:.2f}" for game in PAPER_GAMES)
                yield f"| {run.name} | {evaluation.millions} | {split} | {cells} | {rows.mean():.3f} |"
    yield ""


def growth_table() -> Iterator[str]:
    """What ``state_growth.py`` found."""
    growth = json.loads((HERE / "growth.json").read_text())
    yield f"| | {' | '.join(f'{steps:,}' for steps in growth['steps'])} steps |"
    yield "|---" * (len(growth["steps"]) + 1) + "|"
    for name, sizes in growth["shift"].items():
        cells = (f"{size:.3f}" if size < 100 else f"{size:.0e}" for size in sizes)
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def temperature_table() -> Iterator[str]:
    """What ``maze_temperature.py`` found."""
    found = {agent: json.loads((HERE / file).read_text()) for agent, file in MAZE_FILES.items()}
    solved: dict[str, list[float]] = {}
    for agent, content in found.items():
        policies = content["solved"]
        solved |= {policy if policy == "random" else f"{agent}, {policy}": policies[policy] for policy in policies}
    steps = next(iter(found.values()))["steps"]
    yield f"| solved within | {' | '.join(map(str, steps))} steps |"
    yield "|---" * (len(steps) + 1) + "|"
    for name, shares in solved.items():
        yield f"| {name} | {' | '.join(f'{share:.3f}' for share in shares)} |"
    yield ""


def card(name: str, run: Run) -> str:
    """The model card of a shipped agent."""
    agent = json.loads((AGENTS / name / "config.json").read_text())["agent"]
    played, trained = agent["environment"], agent["training"]
    games = ", ".join(played["games"])
    levels = f"levels {played['start_level']}-{played['start_level'] + played['num_levels'] - 1}"
    frames = ", ".join(f"{frames / 1e6:.1f}" for frames in trained.get("mean_of_frames", ()))
    averaged = f"the mean of those after {frames} million frames; " if frames else ""
    lines = [
        f"# {name}",
        "",
        f"One agent for {games} ({played['distribution_mode']}, {levels}), memory: {agent['core']}.",
        "",
        f"- **Trained** with `{run.command}` for {trained['frames'] / 1e6:.1f} million "
        f"frames ({trained['updates']:,} updates), seed {trained['seed']}. Learning curve and settings: "
        f"experiments/procgen/runs/{run.name}.",
        f"- **Weights**: {averaged}half precision; the licence is this project's.",
        "- **Not for** anything but these games; on other levels than its own it is as good as the table says.",
        "",
        "| actions | levels | game | return | 95 % interval | normalised | episodes |",
        "|---|---|---|---|---|---|---|",
    ]
    for evaluation in run.averaged or run.evaluations:
        lines += [
            f"| {evaluation.policy} | {row['split']} | {row['game']} | {row['return']:.2f} "
            f"| {row['return_low']:.2f}, {row['return_high']:.2f} | {row['normalised_score']:.3f} | {row['episodes']} |"
            for row in evaluation.games.to_dict("records")
        ]
    command = f"python eval_rl.py --agent agents/procgen/{name} --splits train,validation,test"
    watch = f"python eval_rl.py --agent agents/procgen/{name} --episodes 10 --video"
    return "\n".join(
        [*lines, "", "Reproduce, and watch it on unseen levels:", "", f"    {command}", f"    {watch}", ""]
    )


@cache
def named_runs() -> dict[str, Run]:
    """All training runs by name; read once."""
    return {run.name: run for run in runs()}


def unseen_tested() -> dict[str, Run]:
    """The runs of the page itself that were evaluated on unseen levels; averaged weights as a run of their own."""
    return {
        f"{agent}{mark}": replace(run, evaluations=of_agent)
        for agent, run in ((agent, named_runs()[name]) for agent, name in RESULTS.items())
        for mark, of_agent in ((AVERAGED, run.averaged), ("", run.evaluations))
        if of_agent and len(unseen(of_agent[0].episodes))
    }


def six_game_runs() -> list[Run]:
    """The runs on the six games together."""
    return [run for run in named_runs().values() if not run.in_memory_mode and not run.of_one_game]


def texts() -> pages.Texts:
    """All pages, and the cards of the shipped agents."""
    names, found = named_runs(), six_game_runs()
    in_memory_mode = [run for run in names.values() if run.in_memory_mode]
    evaluated = {run.name: run for run in in_memory_mode if run.evaluations}
    results = {agent: names[name] for agent, name in RESULTS.items()}
    tables: dict[str, Any] = {
        "results": result_table(unseen_tested()),
        "games": game_table(unseen_tested(), PAPER_GAMES, random_episodes(RANDOM)),
        "memory_games": game_table(evaluated, MEMORY_GAMES, random_episodes(RANDOM_MEMORY, "memory")),
        "training": training_table(found),
        "times": time_table(found),
        "steps": step_table({step: names[run] for step, run in STEPS.items()}),
        "cores": core_table({agent: run for agent, run in results.items() if run.recipe not in PRESET.values()}),
        "maze": one_game_table([run for run in names.values() if run.of_one_game]),
        "memory": training_table(in_memory_mode, MEMORY_MARKS),
        "difference": difference_table({name: (names[srwm], names[lstm]) for name, (srwm, lstm) in PAIRS.items()}),
        "gaps": gap_table([run for run in found if run.evaluations]),
        "growth": growth_table(),
        "temperature": temperature_table(),
        "evaluation": evaluation_table([*names.values()]),
    }
    made = {page: pages.fill(page, SCRIPT, tables) for page in PAGES}
    for name, (run, _) in SHIPPED.items():
        if (AGENTS / name).is_dir():
            made[AGENTS / name / "README.md"] = card(name, names[run])
    return made


def draw() -> None:
    """All pictures of these pages but the film."""
    results = {agent: named_runs()[name] for agent, name in RESULTS.items()}
    draw_curves(six_game_runs(), results, PICTURES / "curves.png")
    draw_scores(unseen_tested(), PICTURES / "scores.png")
    for name in STATES:
        draw_state(json.loads((HERE / f"state_{name}.json").read_text()), PICTURES / f"state_{name}.png")


if __name__ == "__main__":
    raise SystemExit(pages.run(__doc__, texts, draw))
