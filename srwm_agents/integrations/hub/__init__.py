"""Agents on the Hugging Face Hub: push with a generated model card, and load."""

from srwm_agents.extras import require

require("hub", "huggingface_hub", "pandas")

from srwm_agents.integrations.hub.card import model_card  # noqa: E402
from srwm_agents.integrations.hub.repository import HubError, load_agent_from_hub, push_agent_to_hub  # noqa: E402

__all__ = ["HubError", "load_agent_from_hub", "model_card", "push_agent_to_hub"]
