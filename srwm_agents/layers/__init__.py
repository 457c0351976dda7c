"""nn.Modules, each around one op."""

from srwm_agents.layers.delta import DeltaLayer
from srwm_agents.layers.fake_sr import FakeSRLayer
from srwm_agents.layers.feedforward import FeedForwardBlock
from srwm_agents.layers.ffm import FFMLayer
from srwm_agents.layers.gated_delta import GatedDeltaLayer
from srwm_agents.layers.introspective import IntrospectiveLayer
from srwm_agents.layers.memory import HeadsLayer, LayerState, MemoryLayer, ResidualLayer
from srwm_agents.layers.min_gru import MinGRULayer
from srwm_agents.layers.mlstm import MLSTMLayer
from srwm_agents.layers.shm import SHMLayer
from srwm_agents.layers.sr_delta import SRDeltaLayer
from srwm_agents.layers.srwm import SRWMLayer

__all__ = [
    "DeltaLayer",
    "FFMLayer",
    "FakeSRLayer",
    "FeedForwardBlock",
    "GatedDeltaLayer",
    "HeadsLayer",
    "IntrospectiveLayer",
    "LayerState",
    "MLSTMLayer",
    "MemoryLayer",
    "MinGRULayer",
    "ResidualLayer",
    "SHMLayer",
    "SRDeltaLayer",
    "SRWMLayer",
]
