"""The cluster that the whole run is played on: which one, what image it gets, and what of ours is in it.

What is played, and in which order, stands in tests/e2e.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import helm_python
import pytest
from rich.console import Console

from support import image
from support.artefacts import keep, keep_servers
from support.helm import Helm
from support.inventory import everything
from whimbrel_cli.demo.shell import Shell
from whimbrel_cli.demo.stage import interruptible
from whimbrel_cli.figures import clock
from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.kubernetes import standing
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster, existing_cluster
from whimbrel_testbed.kubernetes.kubectl import TIMEOUT_SECONDS, run_kubectl
from whimbrel_testbed.kubernetes.node.probe import Node
from whimbrel_testbed.kubernetes.own import own_kubeconfig

SYSTEM, SHOP = "whimbrel-system", "whimbrel-e2e"
KEPT = Path("build/e2e/kept")
"""Where the artefacts of a failed run go."""

_KINDS = "migrations,reversesyncs,validations"
"""Those of ours that hold a finalizer."""
_LET_GO = '{"metadata": {"finalizers": null}}'
_IMAGE = "WHIMBREL_E2E_IMAGE"
_BUILT = "localhost/whimbrel:e2e"
_WIDTH = 150
_ADVICE = "of a killed run, by `make cluster-down`, or as docs/install.md says under Uninstall"


@dataclass(frozen=True)
class Site:
    """A cluster and what a person does in it. `node`: what runs its pods; empty where it is not the test bed's.

    `seconds`: how long a deletion may take where a run is tidied up.
    """

    cluster: KubernetesCluster
    shell: Shell
    helm: Helm
    node: str
    before: frozenset[str]
    seconds: int = 90

    @property
    def console(self) -> Console:
        """Where the log goes."""
        return self.shell.console

    def heading(self, text: str) -> None:
        """Begin a chapter of the log."""
        self.console.print()
        self.console.rule(f"{clock(datetime.now(UTC))} {text}", align="left", characters="=")

    def say(self, text: str) -> None:
        """Tell what is done, or why not."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def made(self) -> set[str]:
        """All objects that came since the beginning, as kind/namespace/name; in a cluster of others', ours alone."""
        new = everything(self.cluster) - self.before
        return new if self.node else {each for each in new if "whimbrel" in each}

    def image(self, folder: Path) -> dict[str, object]:
        """Build the image where the node needs one, and load it; return the chart's values that name it."""
        given = os.environ.get(_IMAGE, "")
        if given:
            self.say(f"The image is {given}, as IMAGE says: none is built.")
            return named(given)
        if self.node == Node.AGENT:
            self.say("The node runs pods as processes of this Python: no image is built or used.")
            return named(_BUILT)
        if self.node != Node.KUBELET:
            pytest.fail("This cluster needs an image that its nodes can pull: IMAGE=registry.example.com/whimbrel:tag")
        self._build(folder)
        return named(_BUILT)

    def _build(self, folder: Path) -> None:
        lacking, reason = image.needs_builder.args[0], image.needs_builder.kwargs["reason"]
        if lacking:
            pytest.fail(f"{reason}. Or name an image by IMAGE=…, or have pods run as processes: WHIMBREL_NODE=agent.")
        base, archive = image.base(folder / "base"), folder / "whimbrel.tar"
        self.shell.show(f"make image IMAGE={_BUILT} BASE={base}")
        try:
            with image.built(_BUILT, base) as told:
                self.say(_of_our_stages(told))
                self.shell.show(f"buildah push {_BUILT} docker-archive:{archive.name}:{_BUILT}")
                image.buildah("push", "--quiet", _BUILT, f"docker-archive:{archive}:{_BUILT}")
            self.say(f"{archive.stat().st_size / 1e6:.0f} MB, not compressed")
            self.shell.show(f"ctr --namespace k8s.io images import {archive.name}")
            standing.load(archive)
        finally:
            archive.unlink(missing_ok=True)

    @contextmanager
    def minded(self) -> Iterator[None]:
        """Where the steps within fail or are interrupted, keep what says why, and take away what they have made.

        To be left before the databases end, which the operator asks when a resource is deleted.
        """
        try:
            yield
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                self.say("\nInterrupted. What was made is taken away now.")
            else:
                self.keep()
            self.tidy()
            raise

    def keep(self) -> None:
        """Write what a person needs to see why it failed, and say where."""
        folder = KEPT.absolute()
        shutil.rmtree(folder, ignore_errors=True)
        keep(self.cluster, (SYSTEM, SHOP), folder)
        if self.node:
            keep_servers(folder)
        self.say(f"\nIt failed. What cluster, operator and workers said is kept in {KEPT}.")

    def tidy(self) -> None:
        """Take away what a run has left that did not come to its end, as far as that goes; say what stays."""
        steps = (
            self._without_resources,
            self._let_go,
            self._without_release,
            self._without_namespaces,
            self._tell_rest,
        )
        for step in steps:
            try:
                step()
            except (TestbedError, helm_python.HelmError) as error:
                self.say(f"  {error}")

    def namespaces(self) -> list[str]:
        """Those of our namespaces that are there."""
        told = self.cluster.kubectl("get", "namespace", SHOP, SYSTEM, "--ignore-not-found", "-o", "name").split()
        return [name.removeprefix("namespace/") for name in told]

    def _resources(self) -> list[str]:
        if not definitions(self.cluster):
            return []
        return self.cluster.kubectl("get", _KINDS, "-n", SHOP, "-o", "name").split()

    def _without_resources(self) -> None:
        if left := self._resources():
            self.shell.run("delete", *left, "-n", SHOP, f"--timeout={self.seconds}s")

    def _let_go(self) -> None:
        """Take the finalizer away where the operator does not: what it would tidy up goes with the databases."""
        for name in self._resources():
            self.shell.run("patch", name, "-n", SHOP, "--type=merge", "--patch", _LET_GO)

    def _without_release(self) -> None:
        if SYSTEM in self.namespaces():
            self.helm.uninstall()

    def _without_namespaces(self) -> None:
        if left := self.namespaces():
            self.shell.run("delete", "namespace", *left, f"--timeout={self.seconds}s")

    def _tell_rest(self) -> None:
        if left := self.made():
            self.say(f"Still in the cluster: {', '.join(sorted(left))}")


def definitions(cluster: KubernetesCluster) -> list[str]:
    """The definitions of ours that a cluster has."""
    told = cluster.kubectl("get", "customresourcedefinitions", "-o", "name").split()
    return [name for name in told if name.endswith(".whimbrel.dev")]


def _of_our_stages(told: str) -> str:
    """What our own stages say while an image is built; the rest is the builder's and pip's."""
    return "\n".join(line for line in told.splitlines() if line.startswith(("bare: ", "slim: ", "whole: ")))


def named(name: str) -> dict[str, object]:
    """The chart's values for an image of that name, with a tag or a digest."""
    if "@" in name:
        repository, digest = name.split("@", 1)
        return {"image.repository": repository, "image.digest": digest}
    repository, _, tag = name.rpartition(":")
    assert repository, f"the image {name} has neither tag nor digest"
    assert "/" not in tag, f"the image {name} has neither tag nor digest"
    return {"image.repository": repository, "image.tag": tag}


@contextmanager
def opened() -> Iterator[Site]:
    """Give the cluster that the environment names."""
    kubeconfig = own_kubeconfig(os.environ)
    if kubeconfig is None:
        pytest.fail("The whole run needs a cluster: make e2e, or KUBECONFIG=… make e2e CLUSTER=existing")
    node = os.environ.get(standing.NODE, "")
    if not node and standing.ADDRESS not in os.environ:
        pytest.fail("The pods must reach the servers of this machine: ADDRESS=… names its address that they can reach")
    with tempfile.TemporaryDirectory(prefix="whimbrel-e2e-") as name:
        folder = Path(name)
        copy = folder / "kubeconfig"
        _copy(kubeconfig, copy)
        cluster = existing_cluster(copy, folder)
        shell = Shell(Console(width=_WIDTH, soft_wrap=True), copy, folder)
        site = Site(cluster, shell, Helm(shell, SYSTEM), node, frozenset(everything(cluster)))
        if there := [*(f"namespace/{each}" for each in site.namespaces()), *definitions(cluster)]:
            pytest.fail(f"The whole run makes and deletes {', '.join(there)}, which the cluster has already: {_ADVICE}")
        with interruptible():
            yield site


def _copy(kubeconfig: Path, copy: Path) -> None:
    """Copy a kubeconfig, its current context alone; with the files that it names, whose paths may be relative to it."""
    copy.touch(mode=0o600)
    words = ("config", "view", "--raw", "--minify", "--flatten")
    copy.write_text(run_kubectl([f"--kubeconfig={kubeconfig}"], words, None, TIMEOUT_SECONDS), encoding="utf-8")
