"""Prometheus and promtool: where they come from, and a server of one's own that scrapes. What it is asked, others know.

$WHIMBREL_PROMETHEUS names a folder with both programs; else those on PATH, else Debian's package, kept in the cache.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whimbrel_testbed import cache, debian, pins
from whimbrel_testbed.cache import TestbedError, announce, run
from whimbrel_testbed.processes import HOST, Child, free_port

_PROGRAMS = ("prometheus", "promtool")
_ADVICE = (
    "Install Prometheus (Debian: apt install prometheus), or set WHIMBREL_PROMETHEUS to a folder that holds the "
    "programs prometheus and promtool."
)


@functools.cache
def programs() -> Path:
    """Return the folder of `prometheus` and `promtool`. Raises TestbedError where there is none, or too old a one."""
    chosen = os.environ.get("WHIMBREL_PROMETHEUS")
    found = [shutil.which(name, path=chosen) if chosen else shutil.which(name) for name in _PROGRAMS]
    if chosen and not all(found):
        raise TestbedError(f"WHIMBREL_PROMETHEUS={chosen} does not hold prometheus and promtool: set another.")
    folder = Path(found[0]).parent if found[0] and found[1] else _cached()
    _require(version(folder / "promtool"), folder)
    return folder


def _cached() -> Path:
    return cache.entry("prometheus-debian", _fetch) / "usr" / "bin"


def _fetch(directory: Path) -> None:
    announce("no Prometheus on PATH: fetching Debian's (20 MB, once)")
    try:
        debian.fetch_packages(directory, [pins.PROMETHEUS_PACKAGE])
    except TestbedError as error:
        raise TestbedError(f"No Prometheus. {_ADVICE} It could not be fetched: {error}") from error
    missing = [name for name in _PROGRAMS if not (directory / "usr" / "bin" / name).is_file()]
    if missing:
        raise TestbedError(f"Debian's package {pins.PROMETHEUS_PACKAGE} has no {', '.join(missing)}. {_ADVICE}")


def version(program: Path) -> tuple[int, ...]:
    """Return the release of a program of Prometheus."""
    text = run([str(program), "--version"], what=f"Asking {program} for its version", timeout=30)
    match = re.search(r"version (\d+)\.(\d+)\.(\d+)", text)
    if match is None:
        raise TestbedError(f"{program} does not say its version. {_ADVICE}")
    return tuple(int(part) for part in match.groups())


def _require(found: tuple[int, ...], folder: Path) -> None:
    if found < pins.PROMETHEUS_OLDEST:
        least, is_ = (".".join(map(str, each)) for each in (pins.PROMETHEUS_OLDEST, found))
        raise TestbedError(f"The Prometheus in {folder} is {is_}; {least} or later is needed. {_ADVICE}")


def promtool(*arguments: str) -> str:
    """Run promtool and return what it prints; a failure is raised with its own words."""
    return run([str(programs() / "promtool"), *arguments], what=f"promtool {' '.join(arguments[:2])}", timeout=120)


@dataclass
class PrometheusServer:
    """A Prometheus of one's own."""

    port: int
    child: Child

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return what an instant query answers now: series with their labels and values. Raises with the reason."""
        found = self.ask("query", query=expr)
        return list(found["result"]) if found["resultType"] == "vector" else [found]

    def ask(self, what: str, **parameters: str) -> dict[str, Any]:
        """Return the data of an answer of the HTTP API's `what`, such as rules, alerts, targets."""
        address = f"http://{HOST}:{self.port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                data: dict[str, Any] = json.load(answer)["data"]
                return data
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            raise TestbedError(f"Prometheus refuses {what} {parameters}: {said}") from error


@contextmanager
def prometheus_server(targets: Sequence[str], rules: Sequence[Path] = ()) -> Iterator[PrometheusServer]:
    """Run a Prometheus that scrapes these addresses (host:port) each second, until the context ends.

    Labels of what it scrapes are kept as they are. `rules` are evaluated each second.
    """
    child = Child("prometheus")
    try:
        configuration = child.directory / "prometheus.yml"
        configuration.write_text(json.dumps(_configuration(targets, rules)), encoding="utf-8")
        port = free_port()
        options = {
            "config.file": str(configuration), "storage.tsdb.path": str(child.directory / "data"),
            "web.listen-address": f"{HOST}:{port}", "storage.tsdb.retention.time": "1h", "log.level": "warn",
        }  # fmt: skip
        command = [str(programs() / "prometheus"), *(f"--{name}={value}" for name, value in options.items())]
        child.start(command, lambda: _ready(port), {"GOMAXPROCS": "1"})
        yield PrometheusServer(port, child)
    finally:
        child.close()


def _configuration(targets: Sequence[str], rules: Sequence[Path]) -> dict[str, Any]:
    job = {"job_name": "whimbrel", "honor_labels": True, "static_configs": [{"targets": list(targets)}]}
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [job],
    }


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
