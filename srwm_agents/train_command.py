"""The training command: ``srwm-train``, ``srwm train``, and ``train_rl.py`` in a checkout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from srwm_agents.command_line import program, quoted, reason, say, to_type
from srwm_agents.launch import started_together


def main(argv: Sequence[str] | None = None) -> int:
    """Train, draw the learning curves, print where everything lies; returns the exit status.

    Under ``torchrun`` it ends the process, since no other way does so whatever became of the others.
    """
    try:
        status = _train(argv)
    except KeyboardInterrupt:  # before training began; afterwards a signal saves and stops
        say(f"{program('train')}: interrupted, nothing was trained")
        status = 130
    if started_together():
        from srwm_agents.processes import end_process

        end_process(status)
    return status


def _report(folder: Path, curves: Path) -> tuple[Path, Path]:
    """Draw a run's curves, and write its page; returns both files."""
    # Seconds, which no run should start with.
    from srwm_agents.comparison.groups import Group, games_in_common
    from srwm_agents.comparison.run_report import write_run_report
    from srwm_agents.comparison.runs import run_at
    from srwm_agents.comparison.scores import random_returns
    from srwm_agents.evaluation.curves import plot_curves

    run = run_at(folder, folder.name)
    assert run is not None  # it has just been trained
    groups = [Group(run.name, (run,))]
    random = random_returns(groups, games_in_common(groups))
    picture = plot_curves(curves, folder / "learning_curves.png", folder.name, run.window, random)
    return picture, write_run_report(folder)


def _train(argv: Sequence[str] | None) -> int:
    from srwm_agents.display import make_console
    from srwm_agents.integrations.sample_factory import train

    console = make_console()
    result = train(argv, console)
    if result.exit_status == 0 and result.folder is not None:
        lines = []
        if result.curves is not None:
            try:
                picture, report = _report(result.folder, result.curves)
            except (OSError, ValueError) as error:
                say(f"{program('train')}: the learning curves cannot be drawn: {reason(error)}")
            else:
                lines.append(f"learning curves: {picture} (raw numbers: {result.curves})")
                lines.append(f"report:          {report}")
        if result.agent is not None:
            lines.append(f"agent:           {result.agent}")
        lines.append(f"TensorBoard:     {quoted('tensorboard', '--logdir', result.folder)}")
        if result.agent is not None:
            evaluation = quoted("--train_dir", result.folder.parent, "--experiment", result.folder.name)
            lines.append(f"evaluate it:     {to_type('eval')} {evaluation}")
        for line in lines:
            console.print(line, highlight=False, soft_wrap=True, markup=False)
    return result.exit_status
