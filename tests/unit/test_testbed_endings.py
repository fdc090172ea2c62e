"""A command that is run to its end, whoever is told to end meanwhile."""

import os
import signal
import subprocess
import sys

import pytest

from whimbrel_testbed.endings import run_to_its_end

# `subprocess.run` kills what it runs a quarter of a second after Ctrl-C; this one takes longer to tidy up.
TIDIES = """
import signal, sys, time
def told(number, frame):
    time.sleep(0.6)
    print("tidied after", signal.Signals(number).name, flush=True)
    sys.exit(5)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, told)
print("ready", flush=True)
signal.pause()
"""
RUNS = "import sys; from whimbrel_testbed.endings import run_to_its_end as run; sys.exit(run(sys.argv[1:], {}))"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_may_tidy_up_before_its_runner_ends(number: signal.Signals) -> None:
    command = [sys.executable, "-c", RUNS, sys.executable, "-c", TIDIES]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == "ready\n"
        if number is signal.SIGINT:  # as a terminal does, to all of the group
            os.killpg(runner.pid, number)
        else:
            runner.send_signal(number)
        assert runner.stdout.read() == f"tidied after {number.name}\n"
    assert runner.returncode == 5


def test_its_exit_code_is_told_as_a_shell_does() -> None:
    before = signal.getsignal(signal.SIGINT)
    assert run_to_its_end(["sh", "-c", "exit $CODE"], {"CODE": "7"}) == 7
    assert run_to_its_end(["sh", "-c", "kill -TERM $$"], {}) == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGINT) is before
