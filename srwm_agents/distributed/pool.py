"""Elastic pool of Ray collectors: lost ones are replaced, and machines may join at any time."""

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
"""Rollouts requested of each collector at a time, so that it works on the next one while the learner uses the last."""
_RETRY_SECONDS = 2.0
"""Pause before replacing a collector that was lost before its first rollout."""


class CollectorError(RuntimeError):
    """A collector fails for a reason that another machine would not change, as wrong settings."""


@dataclass(eq=False)
class _Member:
    """A collector that runs, or that Ray has not yet placed on a machine."""

    number: int
    actor: Any
    place: str = ""
    """Machine that it runs on; empty until its first rollout has arrived."""


class CollectorPool(RayCollector):
    """TorchRL's Ray collectors, asynchronous and elastic.

    ``RayCollector`` ends with an exception when one of its actors dies. Here a dead actor is removed and a new one is
    requested; Ray starts it as soon as a machine of the cluster has free CPUs, or when another machine joins. Each
    request refers to the weights as one object, which Ray copies once to each machine, however many collectors it has.
    """

    def __init__(
        self,
        settings: CollectorSettings,
        number: int,
        *,
        first_number: int = 0,
        cpus: float = 1,
        gpus: float = 0,
        log: Callable[[str], None],
    ) -> None:
        """Make a pool; its collectors start with the first :meth:`publish`. Ray must be initialised.

        Args:
            settings: of every collector; each adds its own number to the seed.
            number: how many collectors.
            first_number: number of the first one, so that several learners' collectors get different seeds.
            cpus, gpus: reserved for each by Ray.
            log: called with a line of text for each collector that joins or is lost.
        """
        self._settings, self._cpus, self._gpus = settings, cpus, gpus
        self._log = log
        self._next_number = first_number
        self._wanted = number
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The policy is not an nn.Module")  # each collector makes its own
            super().__init__(
                [],
                frames_per_batch=settings.rollout * settings.environment["num_envs"],
                total_frames=-1,
                collector_class=RolloutCollector,  # type: ignore[reportArgumentType]  (declared as a function)
                collector_kwargs=[],
                remote_configs=[],
                weight_sync_schemes={},  # these need a fixed set of collectors
            )
        self._members: list[_Member] = []
        self._pending: dict[Any, _Member] = {}
        self._weights: tuple[Any, int] | None = None
        self._last_replacement = float("-inf")

    @property
    def places(self) -> list[str]:
        """Machines of the collectors that have delivered a rollout, one entry a collector."""
        return [member.place for member in self._members if member.place]

    def publish(self, weights: dict[str, npt.NDArray[Any]], version: int) -> None:
        """Use these weights from the next request on; the first call starts the collectors."""
        self._weights = (ray.put(weights), version)
        while len(self._members) < self._wanted:
            self._add()

    def next_rollout(self, timeout: float) -> CollectedRollout | None:
        """The next rollout of any collector, or None if none came within ``timeout`` seconds.

        Raises:
            CollectorError: a collector failed with an exception, or does not start.
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
        except RayError as error:  # the machine is lost, and the rollout with it
            self._lose(member, error)
            return None
        self._request(member)
        if not member.place:
            member.place = rollout.place
            self._log(f"collector {member.number} runs on {member.place}: {len(self.places)} of {self._wanted}")
        return rollout

    def close(self) -> None:
        """End all collectors, also those not yet placed on a machine."""
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
            return  # another request of a collector that is already removed
        self._members.remove(member)
        self.remote_collectors.remove(member.actor)
        self._pending = {ref: other for ref, other in self._pending.items() if other is not member}
        with contextlib.suppress(RayError):
            ray.kill(member.actor)  # if it was only unreachable, it would keep its CPUs reserved
        reason = textwrap.shorten(str(error), 120, placeholder=" …")
        where = member.place or "its machine"
        self._log(f"lost collector {member.number} on {where}: {len(self.places)} of {self._wanted} go on ({reason})")
        if not member.place:
            self._last_replacement = time.monotonic()  # it never delivered anything: wait before retrying

    def _replace_lost(self) -> None:
        while len(self._members) < self._wanted and time.monotonic() - self._last_replacement > _RETRY_SECONDS:
            self._add()
