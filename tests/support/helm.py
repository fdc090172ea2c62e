"""Helm by its own library, each call shown as the command that a person types for it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

import helm_python

from support.chart import CHART
from whimbrel_cli.demo.shell import Shell

_SECONDS = 180


class Helm:
    """One release in one namespace, called whimbrel."""

    def __init__(self, shell: Shell, namespace: str) -> None:
        helm_python.disable_logging()
        self._shell, self._namespace = shell, namespace
        self._values: Mapping[str, object] = {}

    def install(self, values: Mapping[str, object]) -> None:
        """Install the chart, values by their dotted names, and wait until all of it is ready."""
        self._values = values
        self._show(f"install whimbrel charts/whimbrel -n {self._namespace} {_told(values)} --wait")
        with self._config() as helm:
            release = helm.install(str(CHART), "whimbrel", nested(values), wait="watcher", timeout=_SECONDS)
        self._shell.print(f"STATUS: {release['status']}")

    def upgrade(self, values: Mapping[str, object]) -> None:
        """Upgrade the release by these values over those it has, and wait until all of it is ready."""
        self._values = {**self._values, **values}
        self._show(f"upgrade whimbrel charts/whimbrel -n {self._namespace} {_told(self._values)} --wait")
        with self._config() as helm:
            release = helm.upgrade(str(CHART), "whimbrel", nested(self._values), wait="watcher", timeout=_SECONDS)
        self._shell.print(f"STATUS: {release['status']}")

    def test(self) -> None:
        """Run the chart's own test, and print what it says."""
        self._show(f"test whimbrel -n {self._namespace} --logs")
        with self._config() as helm:
            told = helm.test("whimbrel", timeout=_SECONDS, logs=True)
        # The library gives the log of a pod once for each hook.
        self._shell.print("\n".join(dict.fromkeys(str(told["logs"]).split("\n\n"))).strip())

    def uninstall(self) -> None:
        """Uninstall the release; that is refused while a resource waits for the operator."""
        self._show(f"uninstall whimbrel -n {self._namespace}")
        with self._config() as helm:
            helm.uninstall("whimbrel", timeout=_SECONDS)
        self._shell.print('release "whimbrel" uninstalled')

    def _show(self, command: str) -> None:
        self._shell.show(f"helm {command}")

    def _config(self) -> helm_python.Config:
        return helm_python.Config(kubeconfig_path=str(self._shell.kubeconfig), namespace=self._namespace)


def nested(values: Mapping[str, object]) -> dict[str, object]:
    """Values by dotted names, as `--set` takes them, in the form of a values file."""
    found: dict[str, object] = {}
    for name, value in values.items():
        *folders, last = name.split(".")
        place = found
        for folder in folders:
            inner = place.setdefault(folder, {})
            assert isinstance(inner, dict), name
            place = inner
        place[last] = value
    return found


def _told(values: Mapping[str, object]) -> str:
    return " ".join(f"--set {shlex.quote(f'{name}={_text(value)}')}" for name, value in values.items())


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
