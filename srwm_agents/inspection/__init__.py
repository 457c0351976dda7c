"""Looking into a memory: what a core's matrices do step by step, recorded and written as a page, a film and numbers."""

from srwm_agents.inspection.recorder import Recorder
from srwm_agents.inspection.recording import Recording

__all__ = ["Recorder", "Recording"]
