"""Agents on the Hugging Face Hub: push with a generated model card, and load."""

from srwm_agents.integrations.hub.card import model_card
from srwm_agents.integrations.hub.repository import HubError, load_agent_from_hub, push_agent_to_hub

__all__ = ["HubError", "load_agent_from_hub", "model_card", "push_agent_to_hub"]
