"""Collectors on any number of machines, of which any may be lost and others may join."""

from __future__ import annotations

import contextlib
import functools
import textwrap
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt
import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from torchrl.collectors.distributed import RayCollector

from srwm_agents.distributed.rollouts import (
    CollectedRollout,
    CollectorSettings,
    RolloutCollector,
    make_acting_agent,
    make_collector_environment,
)

_IN_FLIGHT = 2
"""Rollouts that each collector is asked for ahead: it plays the next one while the learner uses the last."""
_RETRY_SECONDS = 2.0
"""Between two attempts at replacing a collector that never delivered anything."""


class CollectorError(RuntimeError):
    """A collector cannot work anywhere: its settings or its machine's installation are wrong, not its luck."""


@dataclass(eq=False)
class _Member:
    """A collector that runs, or waits for a machine that has room for it."""

    number: int
    actor: Any
    place: str = ""
    """Where it runs; empty until its first rollout has come."""


class CollectorPool(RayCollector):
    """TorchRL's Ray collectors, asynchronous and elastic.

    ``RayCollector`` ends with an exception when one of its actors dies. Here a dead one is dropped and another is
    asked for; Ray starts it as soon as some machine has room, at once on a machine that is there, or whenever one
    joins the cluster. Weights go out with each request as a reference to one object, which Ray brings to each
    machine once, however many collectors it has.
    """

    def __init__(
        self,
        settings: CollectorSettings,
        number: int,
        *,
        first_number: int = 0,
        cpus: float = 1,
        gpus: float = 0,
        say: Callable[[str], None],
    ) -> None:
        """Ask for ``number`` collectors; Ray must be initialised.

        Args:
            settings: of every collector; each adds its own number to the seed.
            number: of collectors.
            first_number: of the first one, so that several learners' collectors play different levels.
            cpus, gpus: that Ray reserves for each.
            say: is told in a line of each collector that is lost or joins.
        """
        self._settings, self._cpus, self._gpus = settings, cpus, gpus
        self._say = say
        self._next_number = first_number
        self._wanted = number
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The policy is not an nn.Module")  # it is made where it acts
            super().__init__(
                [],
                frames_per_batch=settings.rollout * settings.environment["num_envs"],
                total_frames=-1,
                collector_class=RolloutCollector,  # type: ignore[reportArgumentType]  (declared as a function)
                collector_kwargs=[],
                remote_configs=[],
                weight_sync_schemes={},  # these would fix the collectors once and for all
            )
        self._members: list[_Member] = []
        self._pending: dict[Any, _Member] = {}
        self._weights: tuple[Any, int] | None = None
        self._last_replacement = float("-inf")

    @property
    def places(self) -> list[str]:
        """Where collectors run that have delivered something, one entry a collector."""
        return [member.place for member in self._members if member.place]

    def publish(self, weights: dict[str, npt.NDArray[Any]], version: int) -> None:
        """Act with these weights from the next request on; the first call starts the collectors."""
        self._weights = (ray.put(weights), version)
        while len(self._members) < self._wanted:
            self._add()

    def next_rollout(self, timeout: float) -> CollectedRollout | None:
        """The next rollout of any collector, or None if none came within ``timeout`` seconds.

        Raises:
            CollectorError: a collector failed for a reason that another machine would not mend.
        """
        self._replace_lost()
        if not self._pending:
            time.sleep(timeout)
            return None
        done, _ = ray.wait(list(self._pending), timeout=timeout)
        if not done:
            return None
        member = self._pending.pop(done[0])
        try:
            rollout: CollectedRollout = ray.get(done[0])
        except RayTaskError as error:
            raise CollectorError(f"collector {member.number} failed: {error}") from error
        except RayActorError as error:
            if error.actor_init_failed:
                raise CollectorError(f"collector {member.number} does not start: {error}") from error
            self._lose(member, error)
            return None
        except RayError as error:  # the machine is gone, and what it had played with it
            self._lose(member, error)
            return None
        self._request(member)
        if not member.place:
            member.place = rollout.place
            self._say(f"collector {member.number} plays on {member.place}: {len(self.places)} of {self._wanted}")
        return rollout

    def close(self) -> None:
        """End all collectors, those too that still wait for a machine."""
        self._pending.clear()
        self._members.clear()
        self.shutdown()

    def _add(self) -> None:
        settings = replace(
            self._settings,
            seed=self._settings.seed + self._next_number,
            environment={**self._settings.environment, "seed": self._settings.seed + self._next_number},
        )
        self.add_collectors(
            [functools.partial(make_collector_environment, settings)],
            1,
            None,
            [
                {
                    "policy_factory": functools.partial(make_acting_agent, settings),
                    "frames_per_batch": self.frames_per_batch,
                    "trust_policy": True,
                    "track_traj_ids": False,
                    "use_buffers": False,
                    "auto_register_policy_transforms": False,
                }
            ],
            [
                {
                    "num_cpus": self._cpus,
                    "num_gpus": self._gpus,
                    "scheduling_strategy": "SPREAD",
                    "max_restarts": 0,
                }
            ],
        )
        member = _Member(self._next_number, self.remote_collectors[-1])
        self._next_number += 1
        self._members.append(member)
        for _ in range(_IN_FLIGHT):
            self._request(member)

    def _request(self, member: _Member) -> None:
        assert self._weights is not None
        self._pending[member.actor.play.remote(*self._weights)] = member

    def _lose(self, member: _Member, error: RayError) -> None:
        if member not in self._members:
            return  # the second request of a collector whose loss is known
        self._members.remove(member)
        self.remote_collectors.remove(member.actor)
        self._pending = {ref: other for ref, other in self._pending.items() if other is not member}
        with contextlib.suppress(RayError):
            ray.kill(member.actor)  # one that is only out of reach would hold its CPUs when it is back
        reason = textwrap.shorten(str(error), 120, placeholder=" …")
        where = member.place or "its machine"
        self._say(f"lost collector {member.number} on {where}: {len(self.places)} of {self._wanted} go on ({reason})")
        if not member.place:
            self._last_replacement = time.monotonic()  # it never worked: not again at once

    def _replace_lost(self) -> None:
        while len(self._members) < self._wanted and time.monotonic() - self._last_replacement > _RETRY_SECONDS:
            self._add()
