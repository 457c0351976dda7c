"""``--with_wandb``: a run's settings and summaries at Weights & Biases (or in ``wandb/``, with WANDB_MODE=offline)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from srwm_agents.command_line import reason
from srwm_agents.integrations.sample_factory.request import ConfigError


def begin(cfg: Any) -> None:
    """Start or resume a run of wandb's, if ``with_wandb`` asks for one; before summary writers are made.

    Like Sample Factory's own function, which passes a setting that wandb 0.20 and later refuse.

    Raises:
        ConfigError: wandb is not installed, or does not start.
    """
    if not cfg.with_wandb:
        return
    try:
        import wandb
    except ImportError as error:
        raise ConfigError("--with_wandb is True, but wandb is not installed: pip install wandb") from error
    if "wandb_unique_id" not in cfg:
        cfg.wandb_unique_id = f"{cfg.experiment}_{datetime.now():%Y%m%d_%H%M%S_%f}".replace("/", "_")
    try:
        wandb.init(
            project=cfg.wandb_project,
            entity=cfg.wandb_user,
            sync_tensorboard=True,
            id=cfg.wandb_unique_id,
            name=cfg.wandb_unique_id,
            group=cfg.env if cfg.wandb_group is None else cfg.wandb_group,
            job_type=cfg.wandb_job_type,
            tags=cfg.wandb_tags,
            resume="allow",
        )
        wandb.config.update(dict(cfg), allow_val_change=True)
    except Exception as error:  # wandb's own types, and those of its validation and of the network
        raise ConfigError(f"--with_wandb is True, but wandb does not start: {reason(error)}") from error


def end(cfg: Any) -> None:
    """Finish the run of wandb's, if there is one."""
    if cfg.with_wandb:
        import wandb

        wandb.finish()
