"""Ends a run whose updates are left out, one after another, because their gradients are not finite."""

from __future__ import annotations

from torch import Tensor

from srwm_agents.integrations.sample_factory.checkpoint import NotFiniteError
from srwm_agents.learning import Rollout

LIMIT = 20
"""So many more updates left out than made, counted from when they were last as many, end the run."""


class DroppedUpdates:
    """Counts updates that were left out. A run in which most of them are looks healthy, but nothing is learned."""

    def __init__(self) -> None:
        self.more_than_made = 0

    def add(self, updates: int, dropped: int, rollout: Rollout) -> None:
        """Count the updates that were made from a rollout.

        Args:
            updates: how many there were.
            dropped: how many gradients in them were not finite.
            rollout: what they were made from, to say in the error what in it is not finite.

        Raises:
            NotFiniteError: there have been too many.
        """
        dropped = min(updates, dropped)
        self.more_than_made = max(0, self.more_than_made + 2 * dropped - updates)
        if self.more_than_made < LIMIT:
            return
        entries: dict[str, Tensor] = {"reward": rollout.rewards, "state of the memory": rollout.state}
        entries |= {f"observation {name!r}": entry for name, entry in rollout.observations.items()}
        wrong = [name for name, entry in entries.items() if not entry.isfinite().all()]
        cause = f"the {' and the '.join(wrong)} that they had to learn from" if wrong else "losses or gradients"
        raise NotFiniteError(
            f"the latest {self.more_than_made} updates were left out, because {cause} were not finite: nothing is "
            "learned any more; the last checkpoint is untouched"
        )
