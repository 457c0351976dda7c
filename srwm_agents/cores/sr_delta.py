"""A stack of SR-Delta layers."""

from __future__ import annotations

from srwm_agents.cores.srwm import SRWMCore
from srwm_agents.layers import SRDeltaLayer


class SRDeltaCore(SRWMCore):
    """SRWMs that program fast weight matrices; Irie et al., ICML 2022, section 4."""

    layer = SRDeltaLayer
