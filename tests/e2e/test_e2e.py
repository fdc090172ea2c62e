"""The whole product on a cluster, as those who use it have it: image, chart, both examples under traffic, the end.

`make e2e` runs it, on a cluster that it names. The steps are played in this order, and the first failure ends them.
What is printed is the commands that a person would type, and what they answer.
"""

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest

from support.inventory import in_namespace
from support.patience import eventually
from support.site import SHOP, SYSTEM, Site, opened
from whimbrel_cli.demo.cluster import move
from whimbrel_cli.demo.options import Options, Pair
from whimbrel_cli.demo.pairs import set_stage
from whimbrel_cli.exits import Exit
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster

ROWS = int(os.environ.get("WHIMBREL_E2E_ROWS", "2000"))
PATIENCE = 1200.0
MOVING = ("Snapshot", "CatchUp", "Following")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with opened() as found:
        yield found
        # Where only some of the steps were asked for.
        if found.namespaces():
            found.tidy()


def test_image_and_chart_are_installed(site: Site, tmp_path: Path) -> None:
    site.heading("The image, and the chart")
    with site.minded():
        values = site.image(tmp_path)
        site.shell.run("create", "namespace", SYSTEM)
        site.shell.run("label", "namespace", SYSTEM, "pod-security.kubernetes.io/enforce=restricted")
        site.helm.install({**values, "crds.keep": False})
        site.shell.run("get", "nodes,pods", "-n", SYSTEM, "-o", "wide")
        site.helm.test()


@contextmanager
def upgraded_meanwhile(site: Site) -> Iterator[None]:
    """The release is upgraded while the migration moves data: one operator after the other goes and comes."""
    over = threading.Event()

    def upgrade() -> str:
        phase = eventually(lambda: over.is_set() or under_way(site.cluster), seconds=PATIENCE)
        if phase is True:
            return ""
        site.helm.upgrade({"logFormat": "json"})
        return str(phase)

    with ThreadPoolExecutor(1) as threads:
        begun = threads.submit(upgrade)
        try:
            yield
        finally:
            over.set()
        phase = begun.result()
    assert phase in MOVING, "the migration was over before the release could be upgraded"
    lines = site.cluster.kubectl("logs", "-n", SYSTEM, "deployment/whimbrel", "--tail=5").splitlines()
    assert all("message" in json.loads(line) for line in lines)
    site.say(f"The release was upgraded while the migration was in {phase}.")


def under_way(cluster: KubernetesCluster) -> str:
    """The migration's phase while it moves data."""
    words = ("get", "migrations", "-n", SHOP, "-o", "jsonpath={.items[*].status.phase}")
    phase = cluster.kubectl(*words)
    return phase if phase in MOVING else ""


@pytest.mark.parametrize("pair", list(Pair))
def test_an_example_moves_a_live_database(site: Site, pair: Pair) -> None:
    way_back = pair is Pair.DYNAMODB
    acts = "cutover, the way back, rollback" if way_back else "an upgrade meanwhile, cutover"
    site.heading(f"{pair.example.name}: traffic, {acts}, delete")
    options = Options(pair.example, pair, rows=ROWS, timeout=PATIENCE, way_back=way_back)
    with ExitStack() as stack:
        stage = set_stage(stack, site.console, options)
        stack.enter_context(site.minded())
        with nullcontext() if way_back else upgraded_meanwhile(site):
            assert move(stage, options, site.shell, SHOP) is Exit.DONE
        site.console.print()
        site.shell.run("delete", "migration", "flights", "--timeout=110s")
        eventually(lambda: not in_namespace(site.cluster, SHOP), lambda: in_namespace(site.cluster, SHOP))
        site.say(f"In the namespace {SHOP} are left its Secrets alone.")
        assert stage.left_behind() == []
        site.shell.run("delete", "namespace", SHOP, "--timeout=110s")


def test_nothing_is_left(site: Site) -> None:
    site.heading("The end")
    with site.minded():
        site.helm.uninstall()
        site.shell.run("delete", "namespace", SYSTEM, "--timeout=110s")
        eventually(lambda: not site.made(), site.made)
    site.say("In the cluster is nothing that was not there before.")
