"""Whether this machine can run a real node, and the reason where it cannot: each thing is tried, and undone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from whimbrel_testbed.cache import TestbedError, cache_directory
from whimbrel_testbed.kubernetes.node import cgroups
from whimbrel_testbed.kubernetes.node.configuration import NAMESPACES, Places
from whimbrel_testbed.kubernetes.node.programs import Programs, node_programs

CHOICE = "WHIMBREL_NODE"
_TOOLS = ("unshare", "nsenter", "mount", "ip")
_SECONDS = 30.0
_OVERLAY = """cd "$1" && mkdir lower upper work merged &&
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged"""
_NETWORK = "ip link add try0 type veth peer name try1 && ip link add try2 type bridge"


class Node(StrEnum):
    """What runs a cluster's pods."""

    KUBELET = "kubelet"
    AGENT = "agent"


@dataclass(frozen=True)
class Choice:
    """What is to run the pods, and why it is not a kubelet (empty where it is)."""

    node: Node
    why_not: str = ""
    programs: Programs | None = None


def choose(environment: Mapping[str, str] | None = None) -> Choice:
    """Return a kubelet where the machine allows it, else the process agent with the reason.

    $WHIMBREL_NODE asks for one of them; TestbedError where it asks for a kubelet, and the machine does not allow it.
    """
    asked = wanted(environment)
    if asked == Node.AGENT:
        return Choice(Node.AGENT, f"{CHOICE}={asked} asks for it")
    programs, why_not = probed()
    if why_not and asked == Node.KUBELET:
        raise TestbedError(f"This machine cannot run a kubelet, which {CHOICE}={asked} asks for: {why_not}.")
    return Choice(Node.AGENT, why_not) if programs is None else Choice(Node.KUBELET, programs=programs)


def wanted(environment: Mapping[str, str] | None = None) -> str:
    """Return which node $WHIMBREL_NODE asks for, "" where it asks for none. Raises TestbedError where it is no node."""
    asked = (os.environ if environment is None else environment).get(CHOICE, "")
    if asked not in ("", *Node):
        raise TestbedError(f"{CHOICE}={asked} is neither {Node.KUBELET} nor {Node.AGENT}.")
    return asked


def probed() -> tuple[Programs | None, str]:
    """Return a real node's programs; or None, and in one line why the machine cannot run one."""
    for look in (_account, _tools, _places, _groups, _kernel):
        if why_not := look():
            return None, why_not
    try:
        programs = node_programs()
    except TestbedError as error:
        return None, _one_line(str(error))
    why_not = _filter(programs)
    return (None, why_not) if why_not else (programs, "")


def _account() -> str:
    if not sys.platform.startswith("linux"):
        return f"a kubelet runs on Linux, and this is {sys.platform}"
    return "" if os.geteuid() == 0 else "a kubelet needs root"


def _tools() -> str:
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"{', '.join(missing)} not installed: apt install util-linux mount iproute2" if missing else ""


def _places() -> str:
    used = [
        ("temporary files are", Path(tempfile.gettempdir()), "TMPDIR"),
        ("the cache is", cache_directory(), "WHIMBREL_CACHE"),
    ]
    for what, folder, variable in used:
        if any(folder.resolve().is_relative_to(place) for place in Places(folder, folder).mounted):
            return f"{what} in {folder}, which a node sees another in: set {variable}"
    return ""


def _groups() -> str:
    if missing := cgroups.missing_controllers():
        return f"control groups lack {', '.join(missing)} in {cgroups.ROOT}"
    try:
        cgroups.try_one()
    except OSError as error:
        return f"control groups cannot be written: {error.filename}: {error.strerror}"
    return ""


def _kernel() -> str:
    tries: list[tuple[str, Callable[[], str]]] = [
        ("namespaces cannot be made", lambda: _tried("true")),
        ("a bridge or a veth pair cannot be made", lambda: _tried(_NETWORK)),
        ("an overlay cannot be mounted in temporary files", _overlay),
    ]
    for what, attempt in tries:
        if said := attempt():
            return f"{what}: {said}"
    return ""


def _overlay() -> str:
    with tempfile.TemporaryDirectory(prefix="whimbrel-overlay-") as folder:
        return _tried(_OVERLAY, folder)


def _filter(programs: Programs) -> str:
    """Try what kube-proxy needs of the kernel."""
    table = f"{programs.find('nft')} add table ip whimbrel"
    said = _tried(table, environment=programs.environment(os.environ.get("PATH", os.defpath)))
    return f"the packet filter cannot be used: {said}" if said else ""


def _tried(script: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a script in namespaces of its own, with which all that it makes goes; return what it said where it failed."""
    try:
        done = subprocess.run(
            [*NAMESPACES, "sh", "-c", script, "sh", *arguments], env={**os.environ, **(environment or {})},
            capture_output=True, text=True, check=False, timeout=_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no answer within {_SECONDS:.0f} s"
    return "" if done.returncode == 0 else _one_line(done.stderr) or f"exit code {done.returncode}"


def _one_line(text: str) -> str:
    """Return the first line, without the full stop: what failed first."""
    lines = text.strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else ""
