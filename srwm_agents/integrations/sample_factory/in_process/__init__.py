"""Sample Factory's asynchronous training in one process: a thread acts, a thread learns, C++ threads play.

Processes that share a GPU take turns on it; threads of one process use it at the same time, each on its own stream.
"""

from srwm_agents.integrations.sample_factory.in_process.runner import ThreadedRunner

__all__ = ["ThreadedRunner"]
