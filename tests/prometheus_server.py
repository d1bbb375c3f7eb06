"""A real Prometheus, from Debian's package, for as long as a test needs one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest


def tool(name: str) -> str:
    """Return a program's path; the test is skipped where it is not installed, and fails where it has to be."""
    found = shutil.which(name)
    if found is None:
        why = f"{name} is not installed (Debian: apt-get install prometheus)"
        if os.environ.get("GRIDMM_REQUIRE_TOOLS"):
            pytest.fail(why)
        pytest.skip(why)
    return found


class Prometheus:
    """Asks a running Prometheus."""

    def __init__(self, address: str) -> None:
        self.address = address

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return what an expression comes to now."""
        with urlopen(f"{self.address}/api/v1/query?{urlencode({'query': expression})}", timeout=10) as said:
            answer = json.load(said)
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])

    def alerts(self) -> set[str]:
        """Return the names of the alerts that fire."""
        with urlopen(f"{self.address}/api/v1/alerts", timeout=10) as said:
            found = json.load(said)["data"]["alerts"]
        return {one["labels"]["alertname"] for one in found if one["state"] == "firing"}


@contextmanager
def prometheus(folder: Path, target: str, rules: Path) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes a target each second."""
    program = tool("prometheus")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "gridmm", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    command = (
        program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    )  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            end = time.monotonic() + 30
            while True:
                try:
                    urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=1).close()
                    break
                except OSError:
                    assert process.poll() is None and time.monotonic() < end, "it did not begin"
                    time.sleep(0.1)
            yield Prometheus(f"http://127.0.0.1:{port}")
        finally:
            process.kill()
