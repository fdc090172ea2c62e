"""The chart rendered by Helm's own library, without a cluster; and what the tests that install it have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import helm_python
import yaml

CHART = Path(__file__).parents[2] / "charts" / "whimbrel"
IMAGE = {"repository": "whimbrel", "tag": "test"}
"""What the chart is told to run; the test bed's agent runs a container's command as a process, whatever the image."""
REVERSE = {
    "apiVersion": "whimbrel.dev/v1alpha1",
    "kind": "ReverseSync",
    "metadata": {"name": "back"},
    "spec": {"migrationRef": {"name": "shop"}},
}
"""A resource that the operator takes charge of, and that needs no database: its Migration is not there."""
Object = dict[str, Any]


def rendered(values: dict[str, Any], name: str = "whimbrel", namespace: str = "whimbrel-system") -> list[Object]:
    """All objects of the chart, hooks too, its notes apart; its definitions, which are large, only where asked for."""
    texts = files({"crds": {"enabled": False}, **values}, name, namespace)
    told = [text for file, text in sorted(texts.items()) if file.endswith(".yaml")]
    return [found for text in told for found in yaml.load_all(text, yaml.CSafeLoader) if found]


def files(values: dict[str, Any], name: str = "whimbrel", namespace: str = "whimbrel-system") -> dict[str, str]:
    """What each template of the chart makes, as text."""
    helm_python.disable_logging()
    with helm_python.Chart.load(str(CHART)) as chart:
        made: dict[str, str] = chart.render(values, name=name, namespace=namespace)
    return made


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [each for each in objects if each["kind"] == kind]


def is_hook(each: Object) -> bool:
    """Whether Helm makes it only at its moment."""
    return "helm.sh/hook" in (each["metadata"].get("annotations") or {})
