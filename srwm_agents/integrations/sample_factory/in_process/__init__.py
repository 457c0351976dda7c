"""Sample Factory's asynchronous training in one process: an actor thread, a learner thread, C++ simulator threads.

Processes that share a GPU are time-sliced on it; threads of one process use it concurrently, each on its own stream.
"""

from srwm_agents.integrations.sample_factory.in_process.runner import ThreadedRunner

__all__ = ["ThreadedRunner"]
