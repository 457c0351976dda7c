"""The cluster of a run on one machine: nobody else reaches it, and nothing of it outlives its driver."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
DRIVER = """
import time
from srwm_agents.distributed.local_cluster import local_cluster
with local_cluster(logging_level="error", num_cpus=1):
    print("up", flush=True)
    time.sleep(60)
"""


@pytest.mark.hosts
def test_a_local_cluster_listens_on_the_loopback_interface_and_ends_with_a_killed_driver() -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "up\n"
    parts = psutil.Process(driver.pid).children(recursive=True)
    assert any("raylet" in part.name() for part in parts)
    for part in [psutil.Process(driver.pid), *parts]:
        for connection in part.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip.removeprefix("::ffff:") in ("127.0.0.1", "::1"), part
    time.sleep(2.5)  # for the guard to have seen all of them
    driver.kill()
    driver.wait()
    _, alive = psutil.wait_procs(parts, timeout=15)
    assert not alive
