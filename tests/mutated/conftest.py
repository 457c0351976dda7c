"""Mutated input files: seeded, a few seconds each; SRWM_MUTATIONS=20000 tries that many of each kind."""

from __future__ import annotations

import copy
import json
import os
import random
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

ODD_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 10**6, 10**9, 10**30, -(10**9), 0.5, -0.5, 1e308, float("nan"), float("inf")),
    *("", "srwm", "many", "\n", "\udce9", "../..", "%s", "x" * 5000, [], [1], [0], [-1], [[1]], [None], [10**9] * 3),
    *({}, {"games": 3}, {"a": {"b": 1}}, [1] * 2000, {"obs": [3, 10**5, 10**5]}, {"last_reward": 10**8}),
]


def mutate_json(rng: random.Random, value: Any) -> Any:
    """A copy of a JSON value with one to three of its parts replaced, removed, added or renamed."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        places: list[tuple[Any, Any]] = []
        _collect(value, places)
        if not places:
            break
        parent, key = rng.choice(places)
        action = rng.choice(("replace", "replace", "replace", "remove", "add", "rename", "nudge"))
        if action == "remove":
            del parent[key]
        elif action == "add" and isinstance(parent, dict):
            parent[rng.choice(("colour", "games", "", "\n", "num_levels", "input_size"))] = rng.choice(ODD_VALUES)
        elif action == "rename" and isinstance(parent, dict):
            parent[f"{key}x"] = parent.pop(key)
        elif action == "nudge" and isinstance(parent[key], (int, float)):
            parent[key] = parent[key] * rng.choice((2, -1, 1000, 10**7, 0.5, 0)) + rng.choice((0, 1, -1))
        else:
            parent[key] = copy.deepcopy(rng.choice(ODD_VALUES))
    return value


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        places.append((value, key))
        if isinstance(item, (dict, list)):
            _collect(item, places)


def mutate_text(rng: random.Random, document: Any) -> str:
    """The JSON text of a mutated value; now and then one that is no JSON, or nested deeper than Python recurses."""
    if rng.random() < 0.03:
        return rng.choice(
            ('{"a":' * 10**5, "[" * 10**5 + "]" * 10**5, "", "null", "3", '"text"', "[]", "{" + "1" * 10**5)
        )
    text = json.dumps(mutate_json(rng, document))
    return mutate_bytes(rng, text.encode()).decode(errors="replace") if rng.random() < 0.1 else text


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    """Bytes with bits turned, pieces cut, doubled, zeroed, or numbers made large; or only the beginning."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        if not data:
            break
        at, length = rng.randrange(len(data)), rng.choice((1, 2, 4, 8, 64, 1000))
        # Headers stand at either end.
        at = rng.choice((at, at % 100, max(0, len(data) - 1 - at % 200)))
        action = rng.choice(("turn", "turn", "cut", "double", "zero", "large", "truncate"))
        if action == "turn":
            data[at] ^= 1 << rng.randrange(8)
        elif action == "cut":
            del data[at : at + length]
        elif action == "double":
            data[at:at] = data[at : at + length]
        elif action == "zero":
            data[at : at + length] = bytes(len(data[at : at + length]))
        elif action == "large":
            data[at : at + 4] = rng.choice((b"\xff\xff\xff\x7f", b"\xff" * 4, b"\x7f\xff\xff\xff"))
        elif rng.random() < 0.3:
            del data[at:]
    return bytes(data)


class Mutations:
    """Tries of one test: each with a generator of its own, so that one that fails can be repeated alone."""

    def __init__(self, name: str) -> None:
        self.name, self.number = name, 0

    def __call__(self, usual: int) -> Iterator[random.Random]:
        """As many generators as ``usual``, or as SRWM_MUTATIONS says; SRWM_MUTATION=17 repeats number 17 only."""
        only = os.environ.get("SRWM_MUTATION")
        numbers = range(int(os.environ.get("SRWM_MUTATIONS", usual))) if only is None else [int(only)]
        for number in numbers:
            self.number = number
            yield random.Random(f"{self.name} {number}")

    @contextmanager
    def refused(self, *allowed: type[Exception], seconds: float = 5.0, megabytes: float = 400.0) -> Iterator[None]:
        """Whatever the block is given, it works or raises one of ``allowed`` in one line, soon, with little memory."""
        began, before, message = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "none"
        try:
            yield
        except allowed as error:
            message = str(error)
        except Exception as error:
            error.add_note(f"SRWM_MUTATION={self.number}")
            raise
        took = time.process_time() - began
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        assert message.isprintable(), f"SRWM_MUTATION={self.number}: {message[:2000]!r}"
        assert 0 < len(message) < 1500, f"SRWM_MUTATION={self.number}: {len(message)} characters"
        assert took < seconds, f"SRWM_MUTATION={self.number}: {took:.1f} s"
        assert grown < megabytes, f"SRWM_MUTATION={self.number}: {grown:.0f} MB"


@pytest.fixture
def mutations(request: pytest.FixtureRequest) -> Mutations:
    return Mutations(request.node.name)


@pytest.fixture
def mutate() -> Callable[..., Any]:
    """``mutate(rng, value)``: bytes to bytes, JSON values to JSON text."""
    return lambda rng, value: mutate_bytes(rng, value) if isinstance(value, bytes) else mutate_text(rng, value)
