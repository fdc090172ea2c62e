"""What a pod's status says, by the states of its containers; probe verdicts; termination messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel_testbed.kubernetes.agent.messages import termination_message
from whimbrel_testbed.kubernetes.agent.probes import port_of, tally_of
from whimbrel_testbed.kubernetes.agent.shapes import Unsupported
from whimbrel_testbed.kubernetes.agent.states import (
    TERMINAL,
    PodView,
    Record,
    Running,
    Terminated,
    Waiting,
    backoff,
    end_of,
    phase,
    pod_status,
    restarts,
    restored,
)

AT, LATER = "2030-01-01T00:00:00Z", "2030-01-01T00:00:09Z"
WELL, BADLY = Terminated(0, "Completed"), Terminated(1, "Error")
RUNS, WAITS = Running(AT, "process://1"), Waiting()
State = Waiting | Running | Terminated


def record(state: State, name: str = "c", *, ready: bool = False, last: Terminated | None = None) -> Record:
    return Record(name, "i", state, last, 0, ready, ready)


def view(*states: State, policy: str = "Never", inits: tuple[State, ...] = (), ending: bool = False) -> PodView:
    pod: dict[str, Any] = {"metadata": {"generation": 3}, "spec": {"restartPolicy": policy}}
    mains = [record(state, ready=isinstance(state, Running)) for state in states]
    return PodView(pod, [record(state, "init") for state in inits], mains, "127.1.1.1", AT, ending)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (view(WAITS), "Pending"),
        (view(RUNS), "Running"),
        (view(RUNS, WAITS), "Pending"),
        (view(WELL, RUNS), "Running"),
        (view(WELL), "Succeeded"),
        (view(WELL, BADLY), "Failed"),
        (view(BADLY, policy="OnFailure"), "Running"),
        (view(WELL, policy="OnFailure"), "Succeeded"),
        (view(WELL, policy="Always"), "Running"),
        (view(WELL, policy="Always", ending=True), "Succeeded"),
        (view(BADLY, policy="Always", ending=True), "Failed"),
        (view(WAITS, ending=True), "Failed"),
        (view(RUNS, ending=True), "Running"),
        (view(WAITS, inits=(RUNS,)), "Pending"),
        (view(WAITS, inits=(BADLY,)), "Failed"),
        (view(WAITS, inits=(BADLY,), policy="Always"), "Pending"),
        (view(WAITS, inits=(RUNS,), ending=True), "Pending"),
        (view(WAITS, inits=(BADLY,), policy="Always", ending=True), "Failed"),
        (view(RUNS, inits=(WELL,)), "Running"),
    ],
)
def test_phase(seen: PodView, expected: str) -> None:
    assert phase(seen) == expected


def test_a_container_that_waits_for_its_restart_keeps_the_pod_running() -> None:
    seen = view(policy="Always")
    again = PodView(seen.pod, [], [record(Waiting("CrashLoopBackOff"), last=BADLY)], "127.1.1.1", AT)
    assert phase(again) == "Running"


STATES = st.sampled_from([WAITS, RUNS, WELL, BADLY])


@given(st.lists(STATES, min_size=1, max_size=3), st.sampled_from(["Never", "OnFailure", "Always"]))
def test_a_pod_that_is_ending_with_nothing_running_has_ended(states: list[State], policy: str) -> None:
    status = pod_status(view(*states, policy=policy, ending=True), [], AT)
    assert (status["phase"] in TERMINAL) is not any(isinstance(state, Running) for state in states)
    ready = {one["type"]: one["status"] for one in status["conditions"]}["Ready"]
    assert (ready == "True") is all(isinstance(state, Running) for state in states)


def test_conditions_keep_the_time_of_their_last_change() -> None:
    first = pod_status(view(WAITS), [], AT)["conditions"]
    second = {one["type"]: one for one in pod_status(view(RUNS), first, LATER)["conditions"]}
    assert second["PodScheduled"]["lastTransitionTime"] == AT
    assert second["Ready"] == {
        "type": "Ready", "status": "True", "lastTransitionTime": LATER, "reason": None, "message": None,
        "observedGeneration": 3,
    }  # fmt: skip
    unready = {one["type"]: one for one in first}["Ready"]
    assert (unready["status"], unready["reason"]) == ("False", "ContainersNotReady")
    assert unready["message"] == "containers with unready status: [c]"


def test_readiness_gates_count() -> None:
    seen = view(RUNS)
    seen.pod["spec"]["readinessGates"] = [{"conditionType": "x/y"}]
    assert _ready(seen) == "False"
    seen.pod["status"] = {"conditions": [{"type": "x/y", "status": "True"}]}
    assert _ready(seen) == "True"


def _ready(seen: PodView) -> str:
    return str({one["type"]: one["status"] for one in pod_status(seen, [], AT)["conditions"]}["Ready"])


def test_what_ran_when_the_agent_died_is_lost() -> None:
    containers = [{"name": name, "image": "i"} for name in ("ran", "ended", "new")]
    told = [
        {"name": "ran", "restartCount": 2, "state": {"running": {"startedAt": AT}}, "containerID": "process://9"},
        {"name": "ended", "state": {"terminated": {"exitCode": 3, "reason": "Error"}}},
    ]
    ran, ended, new = restored({"status": {"containerStatuses": told}}, containers, "containerStatuses", LATER)
    assert isinstance(ran.state, Terminated)
    assert (ran.state.exit_code, ran.state.reason, ran.restarts) == (137, "ContainerStatusUnknown", 2)
    assert ran.state.finished_at == LATER
    assert ended.state == Terminated(3, "Error")
    assert new.state == WAITS


def test_ends_restarts_and_pauses() -> None:
    assert end_of(0) == (0, 0, "Completed")
    assert end_of(4) == (4, 0, "Error")
    assert end_of(-15) == (143, 15, "Error")
    wanted = {policy: (restarts(policy, 0), restarts(policy, 1)) for policy in ("Never", "OnFailure", "Always")}
    assert wanted == {"Never": (False, False), "OnFailure": (False, True), "Always": (True, True)}
    assert [backoff(failures) for failures in range(1, 7)] == [1, 2, 4, 8, 10, 10]


def test_a_verdict_changes_at_the_threshold() -> None:
    tally = tally_of({"failureThreshold": 3, "successThreshold": 2})
    answers = [True, True, False, False, True, False, False, False, True, True]
    assert [tally.take(answer) for answer in answers] == [None, True, True, True, True, True, True, False, False, True]
    assert port_of("web", {"name": "c", "ports": [{"name": "web", "containerPort": 80}]}) == 80
    with pytest.raises(Unsupported, match="no port named web"):
        port_of("web", {"name": "c"})


def test_the_termination_message(tmp_path: Path) -> None:
    file, log = tmp_path / "message", tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(300)))
    fallback = termination_message(file, log, "FallbackToLogsOnError", 1)
    assert fallback.splitlines()[-1] == "line 299"
    assert len(fallback.splitlines()) == 80
    log.write_text("x" * 10_000)
    assert len(termination_message(file, log, "FallbackToLogsOnError", 1)) == 2048
    assert termination_message(file, log, "FallbackToLogsOnError", 0) == ""
    assert termination_message(file, log, "File", 1) == ""
    file.write_text("y" * 5000)
    assert termination_message(file, log, "FallbackToLogsOnError", 1) == "y" * 4096
