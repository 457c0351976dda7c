"""Push agents to the Hugging Face Hub and load them; the environment variable HF_ENDPOINT chooses another Hub."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from srwm_agents.agent import Agent, AgentError, load_agent, save_agent
from srwm_agents.integrations.hub.card import model_card
from srwm_agents.portable import CONFIG_FILE, WEIGHTS_FILE

_TRANSPORT_ERRORS: tuple[type[Exception], ...] = tuple(
    base
    for base in HfHubHTTPError.__mro__
    if issubclass(base, Exception) and base.__module__.split(".")[0] in ("requests", "httpx", "httpx2")
)
"""The exceptions of the client's HTTP library, which is another one in each major version of the client."""


class HubError(AgentError):
    """The Hub refused, has no such agent, or cannot be reached; the message says which."""


def push_agent_to_hub(
    agent: Agent,
    repo_id: str,
    *,
    private: bool = False,
    license: str | None = None,
    evaluation: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    message: str = "Add an agent",
    token: str | None = None,
) -> str:
    """Upload an agent and its generated model card in one commit; creates the repository if there is none.

    Args:
        agent: from :func:`srwm_agents.load_agent`.
        repo_id: "user/name".
        private: whether a new repository is private.
        license, evaluation: for the card, see :func:`model_card`.
        revision: the branch; None for main.
        message: of the commit.
        token: a write token; None takes the one of ``hf auth login`` or of HF_TOKEN.

    Returns:
        The commit's URL.

    Raises:
        HubError: the Hub refused, or cannot be reached.
        ValueError: ``evaluation`` is not a table that the evaluation command wrote.
    """
    card = model_card(agent.config, repo_id, license=license, evaluation=evaluation)
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as temporary, _named_errors(repo_id):
        folder = save_agent(agent, Path(temporary) / "agent")
        (folder / "README.md").write_text(card)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return api.upload_folder(
            repo_id=repo_id, folder_path=folder, revision=revision, commit_message=message
        ).commit_url


def load_agent_from_hub(
    repo_id: str,
    *,
    revision: str | None = None,
    device: torch.device | str = "cpu",
    token: str | None = None,
    cache_dir: str | Path | None = None,
) -> Agent:
    """Download an agent that :func:`push_agent_to_hub` uploaded, and load it; only JSON and safetensors are fetched.

    Args:
        repo_id: "user/name".
        revision: a branch, tag or commit; None for main. Only a commit is sure to stay the same agent.
        device: of the agent.
        token: for a private repository; None takes the one of ``hf auth login`` or of HF_TOKEN.
        cache_dir: folder for downloads; None for the Hub client's cache.

    Raises:
        HubError: no such repository or revision, or the Hub cannot be reached and the cache has no copy.
        AgentError: the repository holds no agent, or a damaged one.
    """
    with _named_errors(repo_id):
        folder = HfApi(token=token).snapshot_download(
            repo_id, revision=revision, cache_dir=cache_dir, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE]
        )
    return load_agent(folder, device)


@contextmanager
def _named_errors(repo_id: str) -> Iterator[None]:
    """Convert the Hub client's exceptions to one-line :class:`HubError`."""
    try:
        yield
    except RevisionNotFoundError as error:
        raise HubError(f"{repo_id!r} on the Hub has no such revision") from error
    except RepositoryNotFoundError as error:
        raise HubError(
            f"no repository {repo_id!r} on the Hub, or a private one that the token gives no access to"
        ) from error
    except HFValidationError as error:
        raise HubError(f"repo_id is {repo_id!r}, expected user/name: {_line(error)}") from error
    except LocalEntryNotFoundError as error:
        raise HubError(f"the Hub cannot be reached, and {repo_id!r} is not in the cache") from error
    except HfHubHTTPError as error:
        raise HubError(f"the Hub refused {repo_id!r}: {_line(error)}") from error
    except (ConnectionError, *_TRANSPORT_ERRORS) as error:
        raise HubError(f"the Hub cannot be reached: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
