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
_ENDING = (signal.SIGTERM, signal.SIGINT)


class _Ended(BaseException):
    """SIGTERM came."""


def main(directory: Path, name: str, network: Network) -> int:
    """Hold the namespaces; 1 where they cannot be had or end by themselves."""
    for number in _ENDING:
        signal.signal(number, _end)
    first, group = 0, ""
    holder: subprocess.Popen[str] | None = None
    try:
        holder = _namespaces(directory, name)
        first = _first_process(holder)
        # Two nodes cannot make a link of one name: whose it is, its are the number and the group.
        _join(network, first)
        group = network.group
        # A node of that number that was killed has left its own.
        cgroups.sweep(group)
        cgroups.make(group)
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
        _take_no_signals()
        _clear(holder, first, group)


def _end(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    _take_no_signals()
    raise _Ended


def _take_no_signals() -> None:
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


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


def _clear(holder: subprocess.Popen[str] | None, first: int, group: str) -> None:
    """Kill the first process, with which the kernel kills all others of the node, and remove their control groups.

    Both are as far as it has come to them: 0 and "" where it has not.
    """
    if holder is None:
        return
    if holder.poll() is None:
        os.kill(first or holder.pid, signal.SIGKILL)
    holder.wait()
    for left in cgroups.sweep(group) if group else ():
        announce(f"{left} is still in use: a process of the node lives on. Look with: cat {left}/cgroup.procs")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], Network(int(sys.argv[3]))))
