"""Hosts made of network namespaces: each with an address, a name, a hosts file and temporary files of its own.

Two such hosts reach each other through a virtual cable only, as two machines do; what works because everything is on
one machine (shared sockets, ``localhost``, one node's address for all) fails here. Needs root and iproute2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest

TOOLS = ("ip", "unshare", "mount")


def why_not() -> str:
    """The reason why this machine cannot make network namespaces; empty if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"{missing[0]} is not installed"
    name = f"srwm-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=False)
    return ""


class TwoHosts:
    """Network namespaces "a" and "b" with a link between them; a context manager that removes them at its end."""

    ADDRESSES = {"a": "10.213.77.1", "b": "10.213.77.2"}  # noqa: RUF012 (nobody changes it)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names = {host: f"srwm-{os.getpid()}-{host}" for host in self.ADDRESSES}

    def __enter__(self) -> TwoHosts:
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self) -> None:
        a, b = self._names.values()
        for name in (a, b):
            _run("ip", "netns", "add", name)
        _run("ip", "-n", a, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", b)
        lines = ["127.0.0.1 localhost", *(f"{address} host-{host}" for host, address in self.ADDRESSES.items())]
        for host, name in self._names.items():
            _run("ip", "-n", name, "address", "add", f"{self.ADDRESSES[host]}/24", "dev", "cable")
            for device in ("cable", "lo"):
                _run("ip", "-n", name, "link", "set", device, "up")
            etc = Path("/etc/netns") / name  # which `ip netns exec` puts over /etc
            etc.mkdir(parents=True)
            (etc / "hosts").write_text("\n".join(lines) + "\n")
            (self.folder / host / "ray").mkdir(parents=True)

    def start(
        self, host: str, command: Sequence[str | Path], log: IO[str], **environment: str
    ) -> subprocess.Popen[str]:
        """Start a command on a host, with Ray's files in a folder of that host's."""
        private = self.folder / host / "ray"
        prepare = f'hostname host-{host}; mkdir -p /tmp/ray; mount --bind {private} /tmp/ray; exec "$@"'
        return subprocess.Popen(
            [
                *("ip", "netns", "exec", self._names[host], "unshare", "--uts", "--mount", "sh", "-c", prepare, "sh"),
                *command,
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )

    def kill(self, host: str) -> None:
        """Kill all processes of a host at once, as a power failure does."""
        pids = subprocess.run(
            ["ip", "netns", "pids", self._names[host]], capture_output=True, text=True, check=False
        ).stdout.split()
        for pid in pids:
            subprocess.run(["kill", "-9", pid], capture_output=True, check=False)

    def __exit__(self, *_: object) -> None:
        for host, name in self._names.items():
            self.kill(host)
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[TwoHosts]:
    """Two hosts; skips the test, with the reason, where there can be none."""
    if reason := why_not():
        pytest.skip(reason)
    with TwoHosts(tmp_path) as made:
        yield made
