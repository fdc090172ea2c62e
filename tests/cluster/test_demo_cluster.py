"""The demo on a cluster of its own, from end to end on little data; broken off anywhere it leaves nothing behind."""

from pathlib import Path

import pytest
import yaml

from support.demos import broken_off, demo, gone
from whimbrel_cli.demo.cluster import rendered_chart

pytestmark = [pytest.mark.timeout(1000), pytest.mark.slow]


@pytest.mark.parametrize("pair", ["mysql", "dynamodb"])
def test_the_demo_moves_everything_and_leaves_nothing(scratch: Path, pair: str) -> None:
    process = demo(scratch, "--on-cluster", "--pair", pair)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "migration.whimbrel.dev/flights created" in output
    assert "$ kubectl whimbrel approve flights --plan sha256:" in output
    assert "The application has stopped writing" in output
    assert ("$ kubectl whimbrel rollback flights --yes" in output) is (pair == "dynamodb")
    assert "Compared at the cutover by plain reads" in output
    assert "Normal CutoverSwitched" in output
    assert "No difference in 5 tables. Nothing was lost." in output
    gone(scratch)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("moment", ["$ kubectl create namespace whimbrel-system", "Normal SchemaReady"])
def test_a_demo_that_is_broken_off_leaves_nothing(scratch: Path, moment: str) -> None:
    assert broken_off(scratch, moment, "--on-cluster") > 5


def test_the_chart_is_rendered_with_the_deployment_last() -> None:
    kinds = [each["kind"] for each in yaml.safe_load_all(rendered_chart()) if each]
    assert kinds.count("Deployment") == 1
    assert kinds[-1] == "Deployment"
    assert "CustomResourceDefinition" not in kinds
