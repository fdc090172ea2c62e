"""`python -m whimbrel_testbed.kubernetes.node`: a node's namespaces and network until SIGTERM; programs come later.

Arguments: a directory, the node's name, the network's number. Writes the first process's id into DIRECTORY/pid once
programs may be started there. On SIGTERM all of the node's processes are killed and its control groups removed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from whimbrel_testbed.cache import TestbedError, announce, run
from whimbrel_testbed.kubernetes.node import cgroups, init
from whimbrel_testbed.kubernetes.node.configuration import NAMESPACES, Places
from whimbrel_testbed.kubernetes.node.network import Network

_COMMAND_SECONDS = 30.0


class _Ended(BaseException):
    """SIGTERM came."""


def main(directory: Path, name: str, network: Network) -> int:
    """Hold the namespaces; 1 where they cannot be had or end by themselves."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    first = 0
    holder: subprocess.Popen[str] | None = None
    try:
        holder = _namespaces(directory, name)
        first = _first_process(holder)
        # A node of that number that was killed has left its own.
        cgroups.sweep(network.group)
        cgroups.make(network.group)
        _join(network, first)
        written = directory / "pid.new"
        written.write_text(str(first))
        written.rename(Places(directory, directory).first_process)
        holder.wait()
        announce("the node's first process has ended")
        return 1
    except (TestbedError, OSError) as error:
        announce(str(error))
        return 1
    except _Ended:
        return 0
    finally:
        _clear(holder, first, network)


def _end(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, signal.SIG_IGN)
    raise _Ended


def _namespaces(directory: Path, name: str) -> subprocess.Popen[str]:
    """Start the first process, and wait until it has what it needs."""
    pairs = [str(part) for pair in Places(directory, directory).mounted.items() for part in pair]
    command = [*NAMESPACES, sys.executable, "-I", "-S", str(init.__file__), name, *pairs]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if holder.stdout is None or holder.stdout.readline().strip() != init.READY:
        raise TestbedError("The node's namespaces cannot be made: see the lines above.")
    return holder


def _first_process(holder: subprocess.Popen[str]) -> int:
    """Return the process id, as the machine counts, of what `unshare` has started."""
    children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
    if len(children) != 1:
        raise TestbedError(f"unshare has the children {children}, not one.")
    return int(children[0])


def _join(network: Network, first: int) -> None:
    """Join both ends of the network; a route to the pods needs the node's end to be up."""
    *link, route = network.between(first)
    inside = [["nsenter", f"--target={first}", "--net", *command] for command in network.inside()]
    for command in (*link, *inside, route):
        run(command, what=f"`{' '.join(command)}`", timeout=_COMMAND_SECONDS)


def _clear(holder: subprocess.Popen[str] | None, first: int, network: Network) -> None:
    """Kill the first process, with which the kernel kills all others of the node, and remove their control groups."""
    if holder is None:
        return
    if holder.poll() is None:
        os.kill(first or holder.pid, signal.SIGKILL)
    holder.wait()
    for group in cgroups.sweep(network.group):
        announce(f"{group} is still in use: a process of the node lives on. Look with: cat {group}/cgroup.procs")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], Network(int(sys.argv[3]))))
