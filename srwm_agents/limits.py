"""How large a saved model may be: a small file, or one whose sizes all agree, can ask for any amount of memory.

Each limit is an environment variable, which raises it; it is read when a file is.
"""

from __future__ import annotations

import os

MAX_PARAMETERS = "SRWM_MAX_PARAMETERS"
MAX_TENSORS = "SRWM_MAX_TENSORS"
DEFAULTS = {MAX_PARAMETERS: 100_000_000, MAX_TENSORS: 10_000}
"""Numbers in a file (400 MB of float32), and tensors among which they are; the largest presets have two million in a
hundred."""


class LimitError(ValueError):
    """A model is larger than it may be, or a limit is no number; one line names the limit and how to raise it."""


def limit(name: str) -> int:
    """The limit of that name; :class:`LimitError` if the environment variable is no whole number of at least 1."""
    given = os.environ.get(name, str(DEFAULTS[name]))
    try:
        value = int(given)
    except ValueError:
        value = 0
    if value < 1:
        raise LimitError(f"the environment variable {name} is {given[:50]!r}, expected a whole number of at least 1")
    return value


def check_limit(found: int, name: str, what: str, *, times: float = 1) -> None:
    """Raise :class:`LimitError` if there are more of something than a limit allows.

    Args:
        found: how many there are.
        name: of the limit.
        what: what there are so many of, as "numbers in FILE".
        times: the limit is multiplied by this.
    """
    allowed = int(limit(name) * times)
    if found > allowed:
        needed = -int(-found // times)
        raise LimitError(f"{found:,} {what}, allowed: {allowed:,} (to allow it: {name}={needed})")
