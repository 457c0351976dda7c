"""The demo: a trained agent plays, memory is learned beside no memory, a Procgen level is learned; then one page of it.

    python scripts/demo.py [--output train_dir/demo_page]

`make demo` runs it. Each step is a command that is printed before it runs, so that it can be typed again. Everything
lies in --output: a page (demo.html), its picture (demo.png), a film, and the experiments.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import pandas as pd  # noqa: E402

from srwm_agents import html_page, plotting  # noqa: E402
from srwm_agents.command_line import quoted, reason, say, user_path  # noqa: E402
from srwm_agents.curves import CURVES_FILE, read_curves  # noqa: E402
from srwm_agents.files import write_atomically  # noqa: E402
from srwm_agents.signals import StopRequest  # noqa: E402

SHIPPED = "agents/procgen/srwm"
GAMES = ("starpilot", "bigfish")
UNSEEN = ("--start_level", 1000, "--num_levels", 200)
CARTPOLE = "srwm/CartPole-positions-v0"
MEMORIES = {"srwm": "SRWM", "feedforward": "no memory"}
"""Cores of the runs on CartPole, and what they are called on the page."""
LEVEL = ("--games", "jumper", "--num_levels", 1, "--start_level", 1)
INSPECTED_SECONDS = 8
"""Of play, in each game."""
LONGEST_SECONDS = 600
"""Of a training, which takes about one minute on two cores that nothing else uses."""
LINE_EVERY_SECONDS = 10


class StepError(RuntimeError):
    """A command of the demo ended with another exit status than 0."""


def command(script: str, *arguments: object) -> list[str]:
    """A command line of this checkout, for this Python."""
    return [sys.executable, *map(str, (script, *arguments))]


def training(name: str, output: Path) -> list[str]:
    """The command that trains one of the demo's agents: "jumper", or "cartpole_CORE"."""
    kind, _, core = name.partition("_")
    flags = ("--preset", "cartpole", "--core", core) if kind == "cartpole" else ("--preset", "demo", *LEVEL)
    where = ("--train_dir", output, "--experiment", name, "--restart_behavior", "overwrite")
    ends = ("--train_for_env_steps", 80_000, "--train_for_seconds", LONGEST_SECONDS)
    return command("train_rl.py", *flags, *ends, "--seed", 1, *where)


def run_side_by_side(commands: dict[str, list[str]], folder: Path) -> None:
    """Run training commands at the same time; print each run's frames and mean return meanwhile.

    Args:
        commands: by experiment; what each prints goes to ``EXPERIMENT.log``.
        folder: of experiments and logs.

    Raises:
        StepError: one failed; the others are ended too.
    """
    for words in commands.values():
        print(f"\n$ {quoted('python', *words[1:])}")
    processes: dict[str, subprocess.Popen[bytes]] = {}
    with StopRequest() as stop:
        try:
            for name, words in commands.items():
                with (folder / f"{name}.log").open("wb") as log:
                    processes[name] = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
            said = time.monotonic()
            while any(process.poll() is None for process in processes.values()) and not stop:
                time.sleep(0.5)
                if time.monotonic() - said > LINE_EVERY_SECONDS:
                    said = time.monotonic()
                    print("  " + "   ".join(f"{name}: {latest(folder / name)}" for name in commands), flush=True)
        finally:
            for process in processes.values():
                if process.poll() is None:
                    process.terminate()  # training saves, and stops
            for process in processes.values():
                process.wait()
    if stop:
        raise KeyboardInterrupt
    for name, process in processes.items():
        if process.returncode:
            tail = (folder / f"{name}.log").read_text(errors="replace").strip().splitlines()[-1:]
            raise StepError(f"{name} ended with status {process.returncode}: {' '.join(tail)}")


def run_one(words: list[str]) -> None:
    """Run a command; what it prints is seen."""
    print(f"\n$ {quoted('python', *words[1:])}", flush=True)
    if status := subprocess.run(words, cwd=ROOT, check=False).returncode:
        if status in (130, -2):
            raise KeyboardInterrupt
        raise StepError(f"{words[1]} ended with status {status}")


def latest(experiment: Path) -> str:
    """A run's last mean return, in words."""
    try:
        *_, row = (experiment / "curves.csv").read_text().splitlines()[1:]
        frames, _, _, _, mean, *_ = row.split(",")
        return f"{float(mean):.1f} after {int(frames):,} frames"
    except (OSError, ValueError):
        return "starting"


def scores(report: Path) -> dict[str, dict[str, Any]]:
    """The rows of an evaluation's JSON, by game."""
    return {row["game"]: row for row in json.loads(report.read_text())["games"]}


def play(output: Path) -> None:
    """Everything that takes time."""
    print("1. A trained agent plays levels that it has never seen, and what random actions score there.")
    for agent, episodes, name in ((SHIPPED, 8, "shipped"), ("random", 32, "random")):
        games = ("--games", ",".join(GAMES), *UNSEEN)
        run_one(command("eval_rl.py", "--agent", agent, *games, "--episodes", episodes, "--output", output / name))
    inspected = ("--agent", SHIPPED, "--games", ",".join(GAMES), "--seconds", INSPECTED_SECONDS)
    run_one(command("-m", "srwm_agents", "inspect", *inspected, "--output", output / "inspection", "--overwrite"))
    print("\n2. CartPole whose velocities are hidden: to know them an agent must remember. SRWM beside no memory.")
    run_one(command("eval_rl.py", "--agent", "random", "--env", CARTPOLE, "--output", output / "random_cartpole"))
    run_side_by_side({name: training(name, output) for name in map("cartpole_{}".format, MEMORIES)}, output)
    for core in MEMORIES:
        experiment = ("--train_dir", output, "--experiment", f"cartpole_{core}")
        run_one(command("eval_rl.py", *experiment, "--policy", "greedy", "--episodes", 20))
    print("\n3. A level of Procgen's jumper, learned from its pixels.")
    run_one(command("eval_rl.py", "--agent", "random", *LEVEL, "--output", output / "random_jumper"))
    run_side_by_side({"jumper": training("jumper", output)}, output)


def draw(picture: Path, panels: Sequence[tuple[str, dict[str, pd.DataFrame], float, float]], wide: bool) -> bytes:
    """Draw learning curves; returns the PNG.

    Args:
        picture: the file.
        panels: title, curves by label (all points: the first are means of the few episodes that ended soonest), what
            random actions score, the most that can be scored.
        wide: panels beside each other; else below each other.
    """
    size = (4.6 * len(panels), 3.2) if wide else (3.8, 2.9 * len(panels))
    with plotting.drawing(picture, *size) as figure:
        shape = (1, len(panels)) if wide else (len(panels), 1)
        for axes, (title, curves, random, most) in zip(
            figure.subplots(*shape, squeeze=False).flat, panels, strict=True
        ):
            axes.axhline(random, color=plotting.PALE, ls=":", label="_random")
            for label, curve in curves.items():
                axes.plot(curve["frames"], curve["mean_return"], label=label)
            labels = {"xlabel": "frames; dotted: random actions", "ylabel": "mean return in training"}
            axes.set(title=title, ylim=(0, 1.05 * most), **labels)
            axes.set_xlim(left=0)
            axes.xaxis.set_major_formatter(plotting.short_number)
            axes.locator_params(axis="x", nbins=4)
            if len(curves) > 1:
                plotting.label_lines(axes)
    return picture.read_bytes()


def write_page(output: Path) -> Path:
    """The page of all results; returns its path."""
    shipped, random = (scores(output / name / "eval_sampled.json") for name in ("shipped", "random"))
    rows = [
        [f"{game}, unseen levels: the shipped agent", *_numbers(shipped[game], random[game]), "–"] for game in GAMES
    ]
    chance = scores(output / "random_cartpole/eval_sampled.json")[CARTPOLE]
    curves = {}
    for core, label in MEMORIES.items():
        curves[label] = read_curves(output / f"cartpole_{core}" / CURVES_FILE)
        greedy = scores(output / f"cartpole_{core}/evaluation/eval_greedy.json")[CARTPOLE]
        rows.append([f"CartPole without velocities: {label}", *_numbers(greedy, chance), "500"])
    jumper = read_curves(output / "jumper" / CURVES_FILE)
    level = scores(output / "random_jumper/eval_sampled.json")["jumper"]
    last = {"return": float(jumper["mean_return"].iloc[-1])}
    rows.append(["jumper, one level: SRWM, in training", *_numbers(last, level), "10"])
    panels = [
        ("CartPole without velocities", curves, chance["return"], 500.0),
        ("jumper, one level", {"SRWM": jumper}, level["return"], 10.0),
    ]
    wide = draw(output / "demo.png", panels, wide=True)
    narrow = draw(output / "demo_narrow.png", panels, wide=False)
    columns = ["what", "mean return", "random actions", "the most"]
    film = (output / "inspection/inspection.mp4").read_bytes()
    sections = [
        html_page.Section(
            "Learned just now",
            (
                html_page.picture(wide, "Learning curves: CartPole without velocities, and a level of jumper", narrow),
                html_page.paragraph(
                    "Means of the latest 100 episodes; the first points are of few episodes, those that ended soonest."
                ),
            ),
        ),
        html_page.Section("Scores", (html_page.table(columns, rows, numbers=columns[1:]),)),
        html_page.Section(
            "The shipped agent on levels that it has never seen",
            (
                html_page.video(film),
                html_page.paragraph(
                    f"One SRWM agent on {' and '.join(GAMES)}, sampled actions; below the screen, how far each weight "
                    "of its memory has moved from the trained one. inspection/inspection.html can be scrubbed."
                ),
            ),
        ),
        html_page.Section("Where all lies", (html_page.table(["in this folder", "what it is"], PLACES),)),
    ]
    page = output / "demo.html"
    write_atomically(page, html_page.page("srwm-agents: the demo", sections))
    for row in rows:
        print(f"  {row[0]:<46} {row[1]:>7}   random {row[2]:>6}   the most {row[3]}")
    return page


PLACES = [
    ["demo.png", "the picture above"],
    ["inspection/", "the shipped agent's memory at every step: inspection.html, the film, the numbers"],
    ["shipped/", "evaluation of the shipped agent"],
    ["cartpole_srwm/, cartpole_feedforward/, jumper/", "the runs: agent/ for load_agent, curves.csv, report.html, log"],
    ["random*/", "what random actions score"],
]


def _numbers(row: dict[str, Any], random: dict[str, Any]) -> list[str]:
    return [f"{row['return']:.1f}", f"{random['return']:.1f}"]


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=user_path, default=Path("train_dir/demo_page"), help="(default: %(default)s)")
    output = parser.parse_args().output.absolute()
    began = time.monotonic()
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    try:
        output.mkdir(parents=True, exist_ok=True)
        play(output)
        print(f"\n4. The results, after {time.monotonic() - began:.0f} seconds.")
        page = write_page(output)
    except (StepError, OSError) as error:
        say(f"demo.py: error: {reason(error)}")
        return 1
    except KeyboardInterrupt:
        say("demo.py: interrupted")
        return 130
    print(f"\nAll of it on one page: {page}\nIts picture: {output / 'demo.png'}")
    print(f"Inside the shipped agent: {output / 'inspection/inspection.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
