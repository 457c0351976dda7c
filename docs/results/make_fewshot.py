"""Makes the tables and the picture of fewshot.md, and the models' cards: ``python docs/results/make_fewshot.py``.

Everything comes from committed files: ``fewshot/EXPERIMENT/`` holds what ``fewshot train`` and ``fewshot eval`` wrote
(``settings.json``, ``curves.csv``, ``eval_*.json``), and ``agents/fewshot/EXPERIMENT/`` the portable classifier, if it
is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

HERE = Path(__file__).parent
RAW = HERE / "fewshot"
AGENTS = HERE.parents[1] / "agents" / "fewshot"
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
    Target("Omniglot 1-shot, Conv-4", "omniglot-1shot", "97.4", 98.0),
    Target("mini-ImageNet 1-shot, Conv-4", "mini-1shot", "47.0", 49.0),
    Target("mini-ImageNet 5-shot, Conv-4", "mini-5shot", "61.4", 63.0),
    Target("mini-ImageNet 5-shot, ResNet-12", "mini-5shot_resnet12", "–", 68.0),
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
        return CORES.get(self.settings["core"], self.settings["core"])

    @property
    def training(self) -> dict[str, Any]:
        return self.evaluations[0]["training"]


def runs() -> list[Run]:
    found = []
    for folder in sorted(path.parent for path in RAW.glob("*/settings.json")):
        if not [*folder.glob("eval_*.json")]:
            continue  # trained, and not evaluated yet
        found.append(
            Run(
                folder.name,
                json.loads((folder / "settings.json").read_text()),
                [json.loads(file.read_text()) for file in sorted(folder.glob("eval_*.json"))],
                pd.read_csv(folder / "curves.csv"),
            )
        )
    order = list(CORES.values())
    return sorted(found, key=lambda run: (run.task, order.index(run.core) if run.core in order else 99, run.name))


def tables(found: list[Run]) -> Iterator[str]:
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
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    over_updates, within = figure.subplots(1, 2, sharey=True)
    for i, run in enumerate(run for run in found if run.task == task):
        style = {"color": mpl.color_sequences["tab10"][i], "lw": 1.6}
        over_updates.plot(run.curves["step"], 100 * run.curves["validation_accuracy"], label=run.core, **style)
        curve = pd.DataFrame(run.evaluations[-1]["curve"])
        curve = curve[curve["axis"] == "examples"]
        within.plot(curve["x"], 100 * curve["accuracy"], marker="o", ms=3, label=run.core, **style)
    ways = found[0].settings["ways"]
    for axis, label in ((over_updates, "updates"), (within, "labelled examples shown in the episode")):
        axis.axhline(100 / ways, color="black", lw=0.8, ls=":")
        axis.set_xlabel(label)
        axis.set_ylim(0, 100)
        axis.set_xlim(left=0)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    over_updates.set_ylabel("accuracy, %")
    within.legend(frameon=False, loc="upper left")
    figure.suptitle(task)
    figure.savefig(file, dpi=110)


def card(run: Run) -> str:
    s = run.settings
    lines = [
        f"# {run.name}",
        "",
        f"A few-shot classifier: {run.task}, memory: {run.core}. It learns {s['ways']} new classes from labelled",
        "images by changing its recurrent state alone. How to use it: docs/fewshot.md.",
        "",
        f"- **Trained** with `fewshot train` for {run.training['steps']:,} updates of {s['batch_size']} episodes, "
        f"seed {s['seed']}; chosen on validation classes. Settings: docs/results/fewshot/{run.name}/settings.json.",
        f"- **Labels**: {s['labels']}. **Images**: the shape and normalisation in config.json.",
        "- **Data**: " + "; ".join(DATA.get(name, name) for name in s["dataset"].split(",")),
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
    command = f"python -m srwm_agents fewshot eval --agent agents/fewshot/{run.name}"
    if s["dataset"] != "glyphs":
        command += " --data_dir DIR"
    return "\n".join([*lines, "", "Reproduce:", "", f"    {command} --split {run.evaluations[0]['split']}", ""])


def main() -> None:
    found = runs()
    page = HERE / "fewshot.md"
    text = page.read_text()
    for name, lines in {"tables": tables(found), "targets": target_table(found)}.items():
        begin, end = f"<!-- {name}: made by make_fewshot.py -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n" + "\n".join(lines).rstrip("\n") + f"\n\n{end}{rest.split(end)[1]}"
    page.write_text(text)
    for task in dict.fromkeys(run.task for run in found):
        members = [run for run in found if run.task == task]
        if len(members) > 1:
            s = members[0].settings
            picture(members, task, RAW / f"{s['dataset'].replace(',', '-')}-{s['shots']}shot.png")
    for run in found:
        if (AGENTS / run.name).is_dir():
            (AGENTS / run.name / "README.md").write_text(card(run))


if __name__ == "__main__":
    main()
