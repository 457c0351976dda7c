"""The model card of an agent, written from what is saved with it."""

from __future__ import annotations

import os
from typing import Any

import pandas as pd
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from srwm_agents.agent import AgentConfig
from srwm_agents.cores import CoreConfig, core_setting_names

LIBRARY = "srwm-agents"
PAPER = "https://arxiv.org/abs/2202.05780"
COLUMNS = ("split", "game", "episodes", "return", "return_low", "return_high", "normalised_score")
"""What is read of the evaluation command's table."""


def model_card(
    config: AgentConfig,
    repo_id: str,
    *,
    license: str | None = None,
    evaluation: str | os.PathLike[str] | None = None,
) -> str:
    """Markdown with the Hub's metadata block.

    Args:
        config: the agent's.
        repo_id: "user/name", for the example.
        license: the Hub's identifier of the weights' licence, such as "mit"; None says nothing.
        evaluation: the evaluation command's table, ``eval_sampled.csv``; its scores go into text and metadata.

    Raises:
        ValueError: ``evaluation`` is no such table.
    """
    scores = None if evaluation is None else _scores(evaluation)
    games, env = list(config.environment.get("games", ())), config.environment.get("env", "")
    data = ModelCardData(
        library_name=LIBRARY,
        pipeline_tag="reinforcement-learning",
        tags=[
            "reinforcement-learning",
            "srwm",
            config.core,
            *(["procgen", *games] if games else []),
            *(["gymnasium", env] if env else []),
        ],
        license=license,
        model_name=repo_id.rsplit("/", 1)[-1],
        eval_results=None if scores is None else [_result(row, config) for row in scores],
    )
    sections = [_about(config, repo_id), _use(repo_id), _played_on(config), _network(config)]
    if scores is not None:
        sections.append(_score_table(scores))
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"))


def _about(config: AgentConfig, repo_id: str) -> str:
    return (
        f"# {repo_id.rsplit('/', 1)[-1]}\n\n"
        f"A recurrent reinforcement-learning agent with the memory `{config.core}`, saved by "
        f"[{LIBRARY}]({PAPER}): cores around self-referential weight matrices (Irie et al., ICML 2022)."
    )


def _use(repo_id: str) -> str:
    return (
        "## Use\n\n```python\nfrom srwm_agents import AgentPolicy\n"
        "from srwm_agents.integrations.hub import load_agent_from_hub\n\n"
        f'policy = AgentPolicy(load_agent_from_hub("{repo_id}"))\n'
        "action = policy(observation, episode_start)\n```\n\n"
        "Loading reads JSON and safetensors only; nothing in the files is executed."
    )


def _played_on(config: AgentConfig) -> str:
    facts = {**config.environment, **config.training}
    lines = [f"- **{name}**: {_plain(value)}" for name, value in facts.items()] or ["Not recorded."]
    return "## Training\n\n" + "\n".join(lines)


def _network(config: AgentConfig) -> str:
    observations = ", ".join(f"`{name}` {list(entry.shape)}" for name, entry in config.entries.items())
    spec = config.action_spec
    actions = (
        f"{spec.count} real numbers, clipped" if spec.continuous else f"{', '.join(map(str, spec.sizes))}, discrete"
    )
    core = vars(CoreConfig(input_size=1, **config.core_settings))
    settings = ", ".join(f"{name} {_plain(core[name])}" for name in core_setting_names(core=config.core))
    return (
        "## Network\n\n"
        f"- **observations**: {observations}\n- **actions**: {actions}\n"
        f"- **encoder**: {config.encoder}, fully connected {list(config.encoder_mlp_layers)}\n"
        f"- **core**: {config.core} ({settings})"
    )


def _score_table(scores: list[dict[str, Any]]) -> str:
    rows = [
        f"| {row['split']} | {row['game']} | {row['return']:.2f} | {row['return_low']:.2f}, {row['return_high']:.2f} | "
        f"{_score(row)} | {row['episodes']} |"
        for row in scores
    ]
    head = "| split | game | return | 95 % interval | normalised | episodes |\n|---|---|---|---|---|---|"
    return "## Scores\n\n" + "\n".join([head, *rows])


def _score(row: dict[str, Any]) -> str:
    """A normalised score, which only Procgen's games have."""
    return "–" if pd.isna(row["normalised_score"]) else f"{row['normalised_score']:.3f}"


def _scores(evaluation: str | os.PathLike[str]) -> list[dict[str, Any]]:
    try:
        table = pd.read_csv(evaluation)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{evaluation} is no table of the evaluation command: {error}") from error
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise ValueError(f"{evaluation} is no table of the evaluation command: it has no column {missing[0]!r}")
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _result(row: dict[str, Any], config: AgentConfig) -> EvalResult:
    if env := config.environment.get("env"):
        return EvalResult(
            task_type="reinforcement-learning",
            dataset_type=str(env),
            dataset_name=str(env),
            metric_type="mean_reward",
            metric_value=round(float(row["return"]), 3),
        )
    game = f"{row['game']} ({config.environment.get('distribution_mode', 'easy')}, {row['split']} levels)"
    return EvalResult(
        task_type="reinforcement-learning",
        dataset_type=f"procgen-{row['game']}-{row['split']}",
        dataset_name=f"Procgen {game}",
        metric_type="mean_reward",
        metric_value=round(float(row["return"]), 3),
    )


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
