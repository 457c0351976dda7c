"""Makes the tables and pictures of docs/results/fewshot.md, and the models' cards, from the runs in this folder.

    python -m experiments.fewshot.make_page
    python -m experiments.fewshot.make_page --check

``runs/NAME/`` holds what ``fewshot train`` and ``fewshot eval`` wrote (settings in ``config.yaml``, ``curves.csv``,
reports in ``summary.json``), and ``agents/fewshot/`` the portable classifiers that are kept, under the name that a run
was trained as.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import pages
from experiments.recipes import read_yaml
from srwm_agents import plotting

HERE = Path(__file__).parent
RUNS = HERE / "runs"
PICTURES = pages.PICTURES / "fewshot"
AGENTS = pages.ROOT / "agents" / "fewshot"
CORES = {"srwm": "SRWM", "sr_delta": "SR-Delta", "delta": "DeltaNet", "lstm": "LSTM", "fake_sr": "Fake SR"}
ENCODERS = {"conv4": "Conv-4", "resnet12": "ResNet-12"}
DATA = {
    "glyphs": "glyphs drawn by a procedure (this project's own, no third party's images)",
    "omniglot": "Omniglot, MIT, (c) 2015 Brenden Lake; Lake et al., Science 350:1332, 2015",
    "mini-imagenet": "mini-ImageNet: ImageNet's terms, non-commercial research and education; holds no images",
}


@dataclass(frozen=True)
class Target:
    """What a run was to reach, and what the paper's SRWM did."""

    task: str
    run: str
    published: str
    wanted: float
    split: str = "val"


TARGETS = (
    Target("Omniglot 1-shot, Conv-4", "omniglot_1shot", "97.4", 98.0),
    Target("mini-ImageNet 1-shot, Conv-4", "mini_1shot", "47.0", 49.0),
    Target("mini-ImageNet 5-shot, Conv-4", "mini_5shot", "61.4", 63.0),
    Target("mini-ImageNet 5-shot, ResNet-12", "mini_5shot_resnet12", "–", 68.0),
    Target("glyphs 1-shot, Conv-4, on a CPU", "glyphs", "–", 90.0, "test"),
)

COLUMNS = (
    *("core", "experiment", "classes", "accuracy, %", "episodes", "best at update", "training, min", "parameters"),
    "seed",
)


@dataclass(frozen=True)
class Run:
    """One trained classifier and its evaluations."""

    name: str
    trained_as: str
    """The name of the experiment, and of its classifier in ``agents/fewshot/``."""
    settings: dict[str, Any]
    evaluations: list[dict[str, Any]]
    curves: pd.DataFrame

    @property
    def task(self) -> str:
        s = self.settings
        shots = f"{s['shots']}-shot"
        kind = {"few_shot": shots, "bootstrap": f"{shots}, bootstrapped", "sequential": "sequential"}
        encoder = f"{ENCODERS[s['encoder']]} × {s['encoder_channels']}"
        return f"{s['dataset'].replace(',', ' and ')}, {s['ways']}-way {kind[s['task']]}, {encoder}"

    @property
    def core(self) -> str:
        core: str = self.settings["core"]
        return CORES.get(core, core)

    @property
    def training(self) -> dict[str, Any]:
        return self.evaluations[0]["training"]


def runs() -> list[Run]:
    """All runs that were evaluated, by task and core."""
    found = []
    for folder in sorted(file.parent for file in RUNS.glob("*/summary.json")):
        config = read_yaml(folder / "config.yaml")
        evaluations = json.loads((folder / "summary.json").read_text())
        curves = pd.read_csv(folder / "curves.csv")
        found.append(Run(folder.name, config["trained_as"], config["settings"], evaluations, curves))
    order = list(CORES.values())
    return sorted(found, key=lambda run: (run.task, order.index(run.core) if run.core in order else 99, run.name))


def tables(found: list[Run]) -> Iterator[str]:
    """Accuracies and costs of all runs, a table a task."""
    for task in dict.fromkeys(run.task for run in found):
        yield f"**{task}**\n"
        yield "| " + " | ".join(COLUMNS) + " |"
        yield "|---" * len(COLUMNS) + "|"
        for run in (run for run in found if run.task == task):
            for evaluation in run.evaluations:
                for row in evaluation["accuracy"]:
                    segment = "" if len(evaluation["accuracy"]) == 1 else f", {row['segment']}"
                    classes = "validation" if evaluation["split"] == "val" else evaluation["split"]
                    cells = (
                        *(run.core, run.name, f"{classes}{segment}"),
                        f"{100 * row['accuracy']:.2f} ± {100 * row['interval']:.2f}",
                        *(f"{row['episodes']:,}", f"{run.training['steps']:,}"),
                        f"{run.curves['seconds'].iloc[-1] / 60:.1f}",
                        *(f"{evaluation['parameters']:,}", str(run.training["seed"])),
                    )
                    yield f"| {' | '.join(cells)} |"
        yield ""


def target_table(found: list[Run]) -> Iterator[str]:
    """What was wanted beside what was reached."""
    yield "| task | paper's SRWM (test classes) | target | here | classes | |"
    yield "|---" * 6 + "|"
    names = {run.name: run for run in found}
    for target in TARGETS:
        row = next(e for e in names[target.run].evaluations if e["split"] == target.split)["accuracy"][0]
        accuracy, classes = 100 * row["accuracy"], "validation" if target.split == "val" else target.split
        verdict = f"reached ({classes})" if accuracy >= target.wanted else f"missed by {target.wanted - accuracy:.2f}"
        yield (
            f"| {target.task} | {target.published} | {target.wanted:g} | {accuracy:.2f} ± {100 * row['interval']:.2f} "
            f"| {classes} | {verdict} |"
        )


def picture(found: list[Run], task: str, file: Path) -> None:
    """Left: accuracy on validation classes over updates; right: accuracy after each example inside an episode."""
    members = [run for run in found if run.task == task]
    with plotting.drawing(file, plotting.PAGE_INCHES, 3.3) as figure:
        over_updates, within = figure.subplots(1, 2, sharey=True)
        for run in members:
            over_updates.plot(run.curves["step"], 100 * run.curves["validation_accuracy"], label=run.core)
            curve = pd.DataFrame(run.evaluations[-1]["curve"])
            curve = curve[curve["axis"] == "examples"]
            within.plot(curve["x"], 100 * curve["accuracy"], marker="o", ms=3, label=run.core)
        for axis, label in ((over_updates, "updates"), (within, "labelled examples shown in the episode")):
            axis.axhline(100 / members[0].settings["ways"], color=plotting.INK, lw=0.8, ls=":")
            axis.set_xlabel(label)
            axis.set_ylim(0, 100)
            axis.set_xlim(left=0)
            axis.locator_params(axis="x", nbins=5)
        over_updates.xaxis.set_major_formatter(plotting.short_number)
        within.annotate("chance", (1, 100 / members[0].settings["ways"]), (-3, 3), ("axes fraction", "data"),
                        "offset points", ha="right")  # fmt: skip
        over_updates.set_ylabel("accuracy, %")
        figure.suptitle(task)
        plotting.label_lines(within)


def card(run: Run) -> str:
    s = run.settings
    lines = [
        f"# {run.trained_as}",
        "",
        f"A few-shot classifier: {run.task}, memory: {run.core}. It learns {s['ways']} new classes from labelled",
        "images by changing its recurrent state alone. How to use it: docs/fewshot.md.",
        "",
        f"- **Trained** with `fewshot train` for {run.training['steps']:,} updates of {s['batch_size']} episodes, "
        f"seed {s['seed']}; chosen on validation classes. Settings: experiments/fewshot/runs/{run.name}/config.yaml.",
        f"- **Labels**: {s['labels']}. **Images**: the shape and normalisation in config.json.",
        "- **Data**: " + "; ".join(DATA.get(name, name) for name in str(s["dataset"]).split(",")),
        "- **Licence of the weights**: this project's, subject to the data's terms above.",
        "- **Not for** decisions about people, nor for images unlike those it was measured on, below.",
        "",
        "| classes | accuracy, % | episodes |",
        "|---|---|---|",
    ]
    for evaluation in run.evaluations:
        for row in evaluation["accuracy"]:
            accuracy = f"{100 * row['accuracy']:.2f} ± {100 * row['interval']:.2f}"
            lines.append(f"| {evaluation['split']}, {row['segment']} | {accuracy} | {row['episodes']:,} |")
    command = f"python -m srwm_agents fewshot eval --agent agents/fewshot/{run.trained_as}"
    if s["dataset"] != "glyphs":
        command += " --data_dir DIR"
    return "\n".join([*lines, "", "Reproduce:", "", f"    {command} --split {run.evaluations[0]['split']}", ""])


def texts() -> pages.Texts:
    """The page, and the cards of the classifiers that are kept."""
    found = runs()
    page = pages.DOCS / "results" / "fewshot.md"
    of_page = {"tables": tables(found), "targets": target_table(found)}
    made = {page: pages.fill(page, "experiments.fewshot.make_page", of_page)}
    kept = [run for run in found if (AGENTS / run.trained_as).is_dir()]
    return made | {AGENTS / run.trained_as / "README.md": card(run) for run in kept}


def draw() -> None:
    """A picture for each task that several cores were trained on."""
    found = runs()
    for task in dict.fromkeys(run.task for run in found):
        members = [run for run in found if run.task == task]
        if len(members) > 1:
            s = members[0].settings
            picture(members, task, PICTURES / f"{s['dataset'].replace(',', '-')}-{s['shots']}shot.png")


if __name__ == "__main__":
    raise SystemExit(pages.run(__doc__, texts, draw))
