"""A Ray cluster on this machine alone: it listens on the loopback interface, and ends with its driver."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import ray_constants

from srwm_agents.distributed import guard


@contextmanager
def local_cluster(**options: Any) -> Iterator[None]:
    """Start a cluster and connect to it; ``options`` are those of ``ray.init``. The caller disconnects."""
    watcher = subprocess.Popen(
        [sys.executable, guard.__file__, str(os.getpid())],
        stdin=subprocess.PIPE,
        start_new_session=True,  # a signal to the group must not end it first
    )
    try:
        with _loopback():
            ray.init(address="local", include_dashboard=False, **options)
        yield
    finally:
        watcher.communicate(guard.DONE)


@contextmanager
def _loopback() -> Iterator[None]:
    """Let Ray's processes listen on 127.0.0.1, as they do on other systems than Linux.

    On Linux Ray replaces that address, if it is asked for, by one that other machines reach.
    """
    name, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    environment = os.environ.get(name)
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        if environment is None:
            del os.environ[name]
        else:
            os.environ[name] = environment
