"""Training: updates that never wait for the device, validation, checkpoints and curves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from srwm_agents.display import TrainingDisplay, make_console, tracker
from srwm_agents.fewshot.building import Images, evaluation_tasks, make_classifier, training_task
from srwm_agents.fewshot.evaluation import validate
from srwm_agents.fewshot.experiment import Experiment, ExperimentError
from srwm_agents.fewshot.objective import Objective
from srwm_agents.fewshot.optimisation import AveragedWeights, backward_in_parts, clip_gradients, learning_rate_factor
from srwm_agents.fewshot.settings import Settings
from srwm_agents.fewshot.tasks import Shape
from srwm_agents.graphs import Graphed
from srwm_agents.portable import nonfinite
from srwm_agents.processes import Processes
from srwm_agents.signals import StopRequest

CHECKPOINT_STAYS = "the last checkpoint is untouched: try a lower --learning_rate or a longer --warmup_steps"
VALIDATION_SEED = 1234
VALIDATION_BATCH = 100
LOOK_EVERY_SECONDS = 2.0
"""How often a run looks at the clock, at least, if updates are no longer than that."""


@dataclass(frozen=True)
class TrainingResult:
    """How training ended."""

    folder: Path
    step: int
    best_accuracy: float | None
    """On validation classes; None before the first validation."""
    signal_number: int | None
    """What stopped it early, if a signal did."""
    is_main: bool
    """Whether this process is the one that speaks, of those that trained together."""


class Trainer:
    """The parts of one training run, and one update of them."""

    def __init__(self, settings: Settings, processes: Processes, track: Any = None) -> None:
        """Load the images and make everything, on the device; DataError or ValueError if something does not fit."""
        s, device = settings, processes.device
        parts = processes.world_size * s.gradient_accumulation
        if s.batch_size % parts:
            nearest = parts * max(1, round(s.batch_size / parts))
            raise ValueError(
                f"batch_size is {s.batch_size}, expected a multiple of {processes.world_size} processes "
                f"times gradient_accumulation {s.gradient_accumulation}, as {nearest}"
            )
        if s.cuda_graph and (processes.world_size > 1 or device.type != "cuda"):
            raise ValueError(f"cuda_graph needs one process on a CUDA device, not {processes.world_size} on {device}")
        where = (s.data_dir, s.cache_dir, s.image_size, s.channels, track)
        with processes.main_process_first():
            images = Images.load(s.datasets, "train", *where)
        self.settings, self.processes = s, processes
        banks = images.banks(device, s.rotated)
        self.task = training_task(s, banks)
        self.validation_tasks = []
        if processes.is_main:
            # One query of each class: the answers are independent, so more of them only narrow the interval.
            shape = Shape(s.ways, s.shots, s.ways)
            self.validation_tasks = evaluation_tasks(
                Images.load(s.datasets, "val", *where).banks(device, s.rotated), shape
            )
        torch.manual_seed(s.seed)  # the same weights everywhere
        classifier = make_classifier(s, images, {}).to(device)
        classifier.autocast = s.mixed_precision == "bf16" and device.type == "cuda"
        self.objective = Objective(
            classifier,
            bootstrap_weight=s.bootstrap_weight if s.task == "bootstrap" else None,
            auxiliary_weight=s.auxiliary_weight,
            identities=sum(bank.num_classes for bank in banks),
        ).to(device)
        self.objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.classifier = classifier
        self.average = AveragedWeights(classifier, s.average_decay)
        # On a GPU the rate is read there, so that it can change under a captured graph.
        self.optimizer = torch.optim.AdamW(
            self.objective.parameters(),
            lr=torch.tensor(s.learning_rate, device=device),
            weight_decay=s.weight_decay,
            fused=True,
            capturable=device.type == "cuda",
        )
        self.totals = torch.zeros(2, device=device)
        """Loss and accuracy, summed over the updates since they were last read."""
        self.step = 0
        self.time_share = 0.0
        """How much of ``train_seconds`` had passed when it was last looked at; the same in all processes."""
        self.best_accuracy: float | None = None
        self.history: list[dict[str, Any]] = []
        self._wrapped: nn.Module = processes.wrap(self.objective)
        if s.compile:
            self._wrapped = torch.compile(self._wrapped)  # type: ignore[assignment]
        self._run = Graphed(self._update) if s.cuda_graph else self._update
        self._seed_processes()

    def _seed_processes(self) -> None:
        """Each process draws episodes of its own; a resumed run draws others than it drew before."""
        if self.processes.world_size > 1:
            torch.manual_seed(self.settings.seed + 1_000_003 * (self.processes.rank + 1) + self.step)

    def update(self) -> None:
        """One update; returns before the device has done it."""
        s = self.settings
        factor = learning_rate_factor(s.lr_schedule, self.step, s.warmup_steps, s.train_steps, self.time_share)
        for group in self.optimizer.param_groups:
            group["lr"].fill_(s.learning_rate * factor)
        self._run({})
        self.step += 1

    def _update(self, _inputs: Mapping[str, Any]) -> None:
        # All that it needs it draws itself, on the device.
        s = self.settings
        self.optimizer.zero_grad(set_to_none=True)
        batch = s.batch_size // (s.gradient_accumulation * self.processes.world_size)
        self.totals += backward_in_parts(self._wrapped, lambda: self.task.draw(batch), s.gradient_accumulation)
        clip_gradients(self.objective.parameters(), s.max_grad_norm)
        self.optimizer.step()
        self.average.update()

    @property
    def is_best(self) -> bool:
        """Whether these weights have just been validated, with more than any before them."""
        *before, last = [(row["step"], row["validation_accuracy"]) for row in self.history] or [(-1, 0.0)]
        return last[0] == self.step and all(accuracy < last[1] for _, accuracy in before)

    @property
    def share(self) -> float:
        """How much of training is done, in updates or in time, whichever is more."""
        return max(self.step / self.settings.train_steps, self.time_share)

    def look_at_clock(self, seconds: float) -> None:
        """Take note that training has gone on for so long, resumed parts included."""
        if self.settings.train_seconds is not None:
            mean = self.processes.mean(torch.tensor(seconds, device=self.processes.device))
            self.time_share = float(mean) / self.settings.train_seconds

    def read_totals(self, updates: int) -> tuple[float, float]:
        """Mean loss and accuracy of the last updates, over all processes; waits for the device."""
        loss, accuracy = self.processes.mean(self.totals / updates).tolist()
        self.totals.zero_()
        return loss, accuracy

    def validate(self) -> tuple[float, float]:
        """Accuracy on validation classes and half its interval."""
        model = self.average.model
        model.eval()
        scores = [
            validate(model, task, self.settings.validation_episodes, VALIDATION_BATCH, VALIDATION_SEED)  # type: ignore[arg-type]
            for task in self.validation_tasks
        ]
        model.train()
        accuracy = sum(mean for mean, _ in scores) / len(scores)
        return accuracy, sum(half**2 for _, half in scores) ** 0.5 / len(scores)

    def portable(self, seconds: float) -> Any:
        """The classifier as it is saved: with the record of its training."""
        model: Any = self.average.model
        record = {
            "experiment": self.settings.experiment,
            "steps": self.step,
            "seconds": round(seconds, 1),
            "seed": self.settings.seed,
            "validation_accuracy": self.history[-1]["validation_accuracy"] if self.history else None,
        }
        model.config = replace(model.config, training=record)
        return model

    def state(self, seconds: float) -> dict[str, Any]:
        """Everything that a resumed run needs; FloatingPointError if its weights are NaN or infinite."""
        for model in (self.objective, self.average.model):
            if broken := nonfinite(model.state_dict()):
                raise FloatingPointError(f"{broken} at update {self.step:,}; {CHECKPOINT_STAYS}")
        return {
            "settings": self.settings.to_json(),
            "step": self.step,
            "seconds": seconds,
            "best_accuracy": self.best_accuracy,
            "history": self.history,
            "objective": self.objective.state_dict(),
            "average": self.average.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.processes.device.type == "cuda" else None,
        }

    def load(self, content: dict[str, Any]) -> None:
        """Go on from ``state()``'s content; ExperimentError if it is no such thing, or holds weights that are NaN."""
        try:
            self._load(content)
        except Exception as error:  # the content is a file's
            reason = " ".join(str(error).split())[:200]
            raise ExperimentError(
                f"the checkpoint cannot be resumed ({type(error).__name__}: {reason}); "
                "name another --experiment, or --restart_behavior overwrite"
            ) from error
        self._seed_processes()

    def _load(self, content: dict[str, Any]) -> None:
        for part in ("objective", "average"):
            if broken := nonfinite(content[part]):
                raise ValueError(broken)
        self.objective.load_state_dict(content["objective"])
        self.average.model.load_state_dict(content["average"])
        self.optimizer.load_state_dict(content["optimizer"])
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr"].to(self.processes.device)
        self.step, self.history = int(content["step"]), [dict(row) for row in content["history"]]
        if self.step < 0:
            raise ValueError(f"step is {self.step}, expected at least 0")
        _ = self.is_best  # raises for rows that lack what it reads
        self.best_accuracy = None if content["best_accuracy"] is None else float(content["best_accuracy"])
        content["seconds"] = float(content["seconds"])
        torch.set_rng_state(content["rng"])
        if content["cuda_rng"] is not None and self.processes.device.type == "cuda":
            torch.cuda.set_rng_state(content["cuda_rng"])


def train(settings: Settings, console: Console | None = None) -> TrainingResult:
    """Train as the settings say, from the experiment's checkpoint if there is one.

    Ends after ``train_steps``, after ``train_seconds`` in all or ``train_for_seconds`` in this call, or when SIGINT,
    SIGTERM or SIGHUP comes (a second SIGINT interrupts at once); all of them save. Under ``torchrun`` the first process
    validates, saves and prints.

    Raises:
        ExperimentError, DataError, ValueError: in one line, before anything is trained.
        FloatingPointError: the loss is not finite; the last checkpoint stays.
    """
    with Processes(settings.device) as processes:
        return _train(settings, processes, console or make_console())


def _train(settings: Settings, processes: Processes, console: Console) -> TrainingResult:
    """What :func:`train` says, in one of the processes; what it makes is gone before they part."""
    experiment = Experiment(settings)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(experiment.in_use(settings)) if processes.is_main else None
        content = experiment.load(settings)
        tune(processes.device, one_shape=settings.task != "sequential")
        trainer = Trainer(settings, processes, tracker(console) if processes.is_main else None)
        if folder is not None:
            experiment.begin(settings, folder)
        processes.wait()
        before = 0.0
        if content is not None:
            trainer.load(content)
            before = content["seconds"]
            trainer.look_at_clock(before)
        stop = stack.enter_context(StopRequest())
        display = TrainingDisplay(console, 1.0, done=trainer.share, quiet=not processes.is_main)
        stack.enter_context(display)
        if content is not None:
            display.say(f"resumed {experiment.folder} at update {trainer.step:,}")
            if folder is not None:  # a kill between checkpoint and classifiers must not leave them apart
                for kind in ("latest", *(["best"] if trainer.is_best else [])):
                    experiment.save_classifier(trainer.portable(before), kind)
        _loop(trainer, experiment, display, stop, before)
        return TrainingResult(experiment.folder, trainer.step, trainer.best_accuracy, stop.number, processes.is_main)


def _loop(trainer: Trainer, experiment: Experiment, display: TrainingDisplay, stop: StopRequest, before: float) -> None:
    s, processes = trainer.settings, trainer.processes
    writer = _writer(experiment.folder, trainer.step) if processes.is_main else None
    began = time.monotonic()
    last_save, last_look, looked_at = began, began, trainer.step
    next_look = trainer.step + 1
    row = {"loss": float("nan"), "accuracy": float("nan"), "steps_per_second": float("nan")}

    def seconds() -> float:
        return before + time.monotonic() - began

    def save(*kinds: str) -> None:
        # The checkpoint first: what was killed in between is made up for when the run is resumed.
        experiment.save(trainer.state(seconds()), trainer.history)
        for kind in kinds:
            experiment.save_classifier(trainer.portable(seconds()), kind)

    while trainer.share < 1:
        trainer.update()
        validates = trainer.step % s.validate_every == 0 or trainer.step == s.train_steps
        looks = trainer.step % s.log_every == 0 or trainer.step >= next_look
        if not (validates or looks or (processes.world_size == 1 and stop)):
            continue
        loss, accuracy = trainer.read_totals(trainer.step - looked_at)
        now = time.monotonic()
        trainer.look_at_clock(seconds())
        validates = validates or trainer.share >= 1
        row = {"loss": loss, "accuracy": accuracy, "steps_per_second": (trainer.step - looked_at) / (now - last_look)}
        if loss != loss or abs(loss) == float("inf"):
            raise FloatingPointError(f"the loss is {loss} at update {trainer.step:,}; {CHECKPOINT_STAYS}")
        rate = f"{trainer.step:,} updates, {row['steps_per_second']:,.0f}/s"
        display.update(trainer.share, f"{rate}, loss {loss:.3f}, accuracy {100 * accuracy:.1f} %")
        if writer is not None:
            for name, value in row.items():
                writer.add_scalar(f"train/{name}", value, trainer.step)
            writer.add_scalar("train/learning_rate", float(trainer.optimizer.param_groups[0]["lr"]), trainer.step)
        if validates and processes.is_main:
            _validate(trainer, display, writer, row, seconds)
        out_of_time = s.train_for_seconds is not None and now - began >= s.train_for_seconds
        stopping = processes.any(out_of_time or bool(stop))
        if validates or stopping or now - last_save >= s.save_every_sec:
            if processes.is_main:
                save("latest", *(["best"] if trainer.is_best else []))
            last_save = time.monotonic()
        if stopping:
            break
        last_look, looked_at = time.monotonic(), trainer.step
        updates = processes.mean(torch.tensor(LOOK_EVERY_SECONDS * row["steps_per_second"], device=processes.device))
        next_look = trainer.step + max(1, min(s.log_every, int(updates)))  # the same in all processes
    if processes.is_main and trainer.history:
        experiment.plot(trainer.history)
    if writer is not None:
        writer.close()


def _validate(
    trainer: Trainer,
    display: TrainingDisplay,
    writer: Any,
    row: dict[str, float],
    seconds: Callable[[], float],
) -> None:
    """Measure, and remember it."""
    accuracy, interval = trainer.validate()
    entry = {"step": trainer.step, "seconds": round(seconds(), 1), **row}
    trainer.history.append(entry | {"validation_accuracy": accuracy, "validation_interval": interval})
    writer.add_scalar("validation/accuracy", accuracy, trainer.step)
    if trainer.is_best:
        trainer.best_accuracy = accuracy
    display.say(
        f"{trainer.step:,} updates, {seconds():.0f} s: loss {row['loss']:.3f}, "
        f"validation {100 * accuracy:.2f} ± {100 * interval:.2f} %{', the best so far' if trainer.is_best else ''}"
    )


def tune(device: torch.device, one_shape: bool) -> None:
    """TF32 for the core's matrix products, and convolutions that are tried out once for each shape there is."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = one_shape


def _writer(folder: Path, step: int) -> Any:
    """TensorBoard's writer of a run that goes on from ``step``: what killed runs wrote of later ones is hidden."""
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and only training needs it

    return SummaryWriter(folder / ".summary", purge_step=step + 1)
