"""Pictures of docs/results/procgen.md and of README.md."""

from __future__ import annotations

from pathlib import Path

from experiments.procgen.data import AVERAGED, CORES, PRESET, RANDOM, Run, random_episodes
from srwm_agents import plotting
from srwm_agents.envs import PAPER_GAMES


def look(name: str) -> tuple[str, str]:
    """Colour and line style of a run in ``RESULTS``: a colour a core, dark the preset; dashed for a second seed."""
    name = name.removesuffix(AVERAGED)
    settings = name.removesuffix(", seed 2")
    colour = plotting.INK if settings in PRESET else plotting.COLOURS[list(CORES).index(settings)]
    return colour, "-" if settings == name else "--"


def draw_scores(shown: dict[str, Run], file: Path) -> None:
    """Returns of saved agents on unseen levels, a panel a game and a bar a run; sampled actions, 95 % intervals."""
    evaluated = [
        (name, f"{name}, {evaluation.millions}M frames", evaluation.games)
        for name, run in shown.items()
        for evaluation in run.evaluations
        if evaluation.policy == "sampled"
    ]
    random = random_episodes(RANDOM)
    random = random[random["split"].str.startswith("test")].groupby("game")["return"].mean()
    with plotting.drawing(file, plotting.PAGE_INCHES, 5.6) as figure:
        panels = figure.subplots(2, 3).flat
        for panel, game in zip(panels, PAPER_GAMES, strict=True):
            for i, (name, label, rows) in enumerate(evaluated):
                ranges = rows[(rows["game"] == game) & rows["split"].str.startswith("test")]
                mean = ranges["return"].mean()
                # Ranges are independent samples: the mean's half-width shrinks with their number.
                half = ((ranges["return_high"] - ranges["return_low"]) / 2).pow(2).sum() ** 0.5 / len(ranges)
                hatch = "//" * ("seed" in name) + "xx" * name.endswith(AVERAGED)
                panel.bar(*(i, mean), yerr=half, color=look(name)[0], hatch=hatch, edgecolor="white", lw=0, label=label)
            panel.axhline(random[game], color=plotting.INK, lw=1, ls=":", label="random policy")
            panel.set_title(game)
            panel.set_xticks([])
            panel.grid(False, axis="x")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=1)
        figure.suptitle("Mean return on unseen levels")


def draw_curves(found: list[Run], by_core: dict[str, Run], file: Path) -> None:
    """The mean over games of each core's runs, of all runs at their beginning, and of each core's game by game."""
    with plotting.drawing(file, plotting.PAGE_INCHES, 9.5) as figure:
        panels = figure.subplot_mosaic(
            [["long"] * 3, [*PAPER_GAMES[:3]], [*PAPER_GAMES[3:]], ["all"] * 3], height_ratios=[1.6, 1, 1, 1]
        )
        for name, run in by_core.items():
            curve, (colour, style) = run.smooth(), look(name)
            panels["long"].plot(curve.index.get_level_values("frames") / 1e6, curve, color=colour, ls=style, label=name)
            for game, rows in run.curves.groupby("game"):
                returns = rows.set_index("frames")["mean_return"].rolling(5, min_periods=1).mean()
                panels[str(game)].plot(returns.index / 1e6, returns, color=colour, ls=style, lw=1)
        for run in (run for run in found if len(run.curves)):
            curve = run.smooth()
            frames = curve.index.get_level_values("frames") / 1e6
            colour = plotting.COLOURS[1] if run.long else plotting.PALE
            panels["all"].plot(frames, curve, color=colour, lw=1, zorder=1 + run.long)
        titles = {
            "long": "mean normalised score of each core",
            "all": "mean normalised score of all runs at their beginning, long ones orange",
        }
        for name, panel in panels.items():
            panel.set_title(titles.get(name, f"{name}, return"))
            panel.set_xlim(0, 25 if name == "all" else None)
        panels["all"].set_ylim(-0.1, 0.22)
        panels["long"].legend(loc="lower right", ncols=2)
        figure.supxlabel("million frames; training levels, sampled actions")
