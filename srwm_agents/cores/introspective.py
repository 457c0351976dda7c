"""A stack of introspective nets."""

from __future__ import annotations

from srwm_agents.cores.config import CoreConfig
from srwm_agents.cores.stack import StackCore
from srwm_agents.layers import IntrospectiveLayer


class IntrospectiveCore(StackCore):
    """The net of 1993 where the other cores have theirs; Schmidhuber, ICANN 1993.

    For small sizes: with b-bit addresses, a head of D in- and outputs has D + 2b + 1 units and
    (2D + 2b + 2)(D + 2b + 1) connections (D = 16: 2,378, against an SRWM's 832), all of which it reads through g and
    may rewrite at each step, one step after another in plain PyTorch. Its gradient is back-propagated through time;
    the exact forward gradient of :mod:`srwm_agents.introspective.gradients` would need the square of that number.
    """

    def make_layer(self, config: CoreConfig) -> IntrospectiveLayer:
        return IntrospectiveLayer(
            config.hidden_size, config.num_heads, input_norm=config.input_norm, dropout=config.dropout
        )
