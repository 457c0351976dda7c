"""Optional dependencies: one-line errors that name the extra of this package that installs them."""

from __future__ import annotations

from importlib.util import find_spec


class MissingPackageError(ModuleNotFoundError):
    """A package of one of our extras is not installed; the message says how to install it, in one line."""


def require(extra: str, *modules: str) -> None:
    """Check that modules are installed, without importing them.

    Args:
        extra: the extra of this package that installs them, a key of ``project.optional-dependencies``.
        modules: names as they are imported, without dots.

    Raises:
        MissingPackageError: naming those that are missing.
    """
    if missing := [name for name in modules if find_spec(name) is None]:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingPackageError(
            f"{', '.join(missing)} {verb} not installed; install with: pip install 'srwm-agents[{extra}]'",
            name=missing[0],
        )
