"""An experiment's folder: settings, checkpoint, portable classifiers, curves; each file is replaced atomically."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from srwm_agents import plotting
from srwm_agents.checksums import load_torch_file, torch_file_with_digest
from srwm_agents.experiment_folders import FEWSHOT as CONTENTS
from srwm_agents.experiment_folders import (
    ExperimentError,
    ExperimentFolder,
    check_present,
    experiment_path,
)
from srwm_agents.fewshot.classifier import FewShotClassifier, save_classifier
from srwm_agents.fewshot.settings import Settings
from srwm_agents.files import remove_leftovers, write_atomically

AGENT_FOLDERS = {"latest": "agent", "best": "agent_best"}


class Experiment:
    """Where one training run keeps what it makes."""

    def __init__(self, settings: Settings) -> None:
        """Name the folder; nothing is written yet."""
        if settings.experiment is None:
            raise ExperimentError("name the experiment: --experiment NAME (or a --preset, whose name it then has)")
        self.name = settings.experiment
        self.folder = experiment_path(settings.train_dir.absolute(), settings.experiment)
        self.checkpoint = self.folder / "checkpoint.pt"
        self.curves = self.folder / "curves.csv"

    def in_use(self, settings: Settings) -> ExperimentFolder:
        """The folder, to be entered while this process alone writes there."""
        return ExperimentFolder(self.folder, CONTENTS, settings.restart_behavior)

    def begin(self, settings: Settings, folder: ExperimentFolder) -> None:
        """Make way for the run as ``restart_behavior`` says; to be called once nothing else can fail."""
        folder.begin()
        write_atomically(self.folder / "settings.json", json.dumps(settings.to_json(), indent=2) + "\n")

    def load(self, settings: Settings) -> dict[str, Any] | None:
        """The checkpoint to resume from; None in a new experiment, or one that is to be overwritten.

        Raises:
            ExperimentError: a checkpoint that is lost, does not load, or is one of other settings. Nothing is written.
        """
        if settings.restart_behavior == "overwrite":
            return None
        if not self.checkpoint.exists():
            kept = [folder for folder in AGENT_FOLDERS.values() if (self.folder / folder).exists()]
            if kept:
                raise ExperimentError(
                    f"{self.folder} holds {kept[0]} but no checkpoint to resume from; "
                    "name another --experiment, or --restart_behavior overwrite"
                )
            return None
        try:
            content = load_torch_file(self.checkpoint)
            saved = dict(content["settings"])
        except Exception as error:  # of a damaged file, PyTorch raises many kinds
            reason = " ".join(str(error).split())[:200]
            raise ExperimentError(
                f"{self.checkpoint} does not load ({reason}); to begin anew: --restart_behavior overwrite"
            ) from error
        # A setting that is younger than the checkpoint was what its default is.
        saved = {field.name: field.default for field in fields(settings)} | saved
        for name, value in settings.fixed().items():
            if saved[name] != value:
                raise ExperimentError(
                    f"{self.folder} was trained with {name} {saved[name]!r}, not {value!r}; "
                    "name another --experiment, or --restart_behavior overwrite"
                )
        return content

    def save(self, content: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Write checkpoint and curves; ExperimentError if the folder has been deleted or moved."""
        check_present(self.folder, CONTENTS)
        write_atomically(self.checkpoint, torch_file_with_digest(content))
        if history:
            write_atomically(self.curves, pd.DataFrame(history).to_csv(index=False))
        remove_leftovers(self.folder)

    def save_classifier(self, classifier: FewShotClassifier, kind: str) -> Path:
        """Write the portable classifier, "latest" or "best"; as :meth:`save`."""
        check_present(self.folder, CONTENTS)
        return save_classifier(classifier, self.folder / AGENT_FOLDERS[kind])

    def plot(self, history: list[dict[str, Any]]) -> Path:
        """Draw accuracy and loss over updates."""
        curves = pd.DataFrame(history)
        picture = self.folder / "learning_curve.png"
        with plotting.drawing(picture, plotting.PAGE_INCHES, 3.2) as figure:
            accuracy, loss = figure.subplots(1, 2)
            accuracy.plot(
                curves["step"], 100 * curves["accuracy"], color=plotting.PALE, lw=1.2, label="training episodes"
            )
            accuracy.errorbar(
                *(curves["step"], 100 * curves["validation_accuracy"], 100 * curves["validation_interval"]),
                label="validation classes",
            )
            accuracy.set_ylabel("accuracy, %")
            accuracy.legend()
            loss.plot(curves["step"], curves["loss"], color=plotting.PALE, lw=1.2)
            loss.set_ylabel("training loss")
            for axis in (accuracy, loss):
                axis.set_xlabel("updates")
                axis.set_xlim(left=0)
            figure.suptitle(self.name, parse_math=False)
        return picture
