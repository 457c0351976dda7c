"""Recurrent actor-critic agents whose memory is a self-referential weight matrix."""

from srwm_agents.agent import Agent, AgentConfig, AgentError, load_agent, save_agent
from srwm_agents.integrations import register
from srwm_agents.policy import AgentPolicy, check_fits

__all__ = ["Agent", "AgentConfig", "AgentError", "AgentPolicy", "check_fits", "load_agent", "register", "save_agent"]
__version__ = "0.1.0"
