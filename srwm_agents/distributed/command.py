"""Command line of distributed training: ``python -m srwm_agents distributed train …``."""

from __future__ import annotations

from collections.abc import Sequence

from srwm_agents.command_line import fail, program, reason


def main(argv: Sequence[str]) -> int:
    """Run ``train``, the only command; returns its exit status. Errors are one line on stderr."""
    command, *rest = list(argv) or ["--help"]
    if command in ("-h", "--help"):
        name = program("distributed")
        print(f"usage: {name} train … (see {name} train --help)\n\nTrain with collectors on many machines.")
        return 0
    if command != "train":
        return fail(f"unknown command {command!r}, allowed: train", "distributed")
    return _train(rest)


def _train(argv: Sequence[str]) -> int:
    from srwm_agents.display import make_console
    from srwm_agents.distributed.arguments import check_processes, parse_distributed_args
    from srwm_agents.distributed.pool import CollectorError
    from srwm_agents.distributed.training import train
    from srwm_agents.integrations.sample_factory.config import ConfigError
    from srwm_agents.integrations.sample_factory.processes import TOLD_IN_ONE_LINE, quiet_console_log
    from srwm_agents.launch import Launch
    from srwm_agents.machine import use_threads

    console = make_console()
    try:
        launch = Launch.here()
        cfg = parse_distributed_args(argv)
        check_processes(cfg, launch.world_size)
        if not cfg.log_console:
            quiet_console_log()
        use_threads(cfg.threads, images=True, device=cfg.device)
        result = train(cfg, console)
    except (ConfigError, CollectorError, *TOLD_IN_ONE_LINE) as error:
        return fail(str(error) if isinstance(error, CollectorError) else reason(error), "distributed")
    if launch.is_main and result.exit_status == 0 and result.folder is not None:
        console.print(f"agent: {result.agent}", highlight=False, soft_wrap=True, markup=False)
    return result.exit_status
