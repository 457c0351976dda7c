"""nn.Modules, each around one op."""

from srwm_agents.layers.delta import DeltaLayer
from srwm_agents.layers.fake_sr import FakeSRLayer
from srwm_agents.layers.feedforward import FeedForwardBlock
from srwm_agents.layers.introspective import IntrospectiveLayer
from srwm_agents.layers.memory import HeadsLayer, LayerState, MemoryLayer
from srwm_agents.layers.sr_delta import SRDeltaLayer
from srwm_agents.layers.srwm import SRWMLayer

__all__ = [
    "DeltaLayer",
    "FakeSRLayer",
    "FeedForwardBlock",
    "HeadsLayer",
    "IntrospectiveLayer",
    "LayerState",
    "MemoryLayer",
    "SRDeltaLayer",
    "SRWMLayer",
]
