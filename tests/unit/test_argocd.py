"""Argo CD's health checks and actions, on real statuses of every phase and state; and what stands in charts/argocd."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import argo_files
from support.argo_lua import (
    ARGOCD,
    ROOT,
    SCRIPTS,
    Json,
    ScriptFailed,
    act,
    actions,
    health,
    merged,
    offered,
    run,
    script,
)
from support.argo_moments import Moment, Told, forth, live, moments, there_and_back, timed_out
from whimbrel_api.cutover import CutoverState
from whimbrel_api.manifests import load_manifests
from whimbrel_api.migration import CheckResult, Migration, MigrationSpec, Phase
from whimbrel_api.reverse_sync import ReverseSync, ReverseSyncPhase, ReverseSyncSpec
from whimbrel_api.validation import Validation, ValidationPhase

MOMENTS = moments()
BY_NAME = {(moment.kind, moment.name): moment.obj for moment in MOMENTS}
STEERABLE = [moment for moment in MOMENTS if moment.kind != "Validation"]
MODELS: dict[str, type[Migration] | type[Validation] | type[ReverseSync]] = {
    "Migration": Migration, "Validation": Validation, "ReverseSync": ReverseSync,
}  # fmt: skip
PAGE = (ROOT / "docs" / "argocd.md").read_text(encoding="utf-8")
APPLICATIONS = ROOT / "examples" / "argocd" / "applications.yaml"


def name_of(moment: Moment) -> str:
    return f"{moment.kind}-{moment.name}"


def of(kind: str) -> list[Json]:
    return [moment.obj["status"] for moment in MOMENTS if moment.kind == kind and "status" in moment.obj]


def migration(name: str) -> Json:
    return BY_NAME["Migration", name]


@pytest.mark.parametrize("moment", MOMENTS, ids=name_of)
def test_every_moment_has_its_health_and_says_why(moment: Moment) -> None:
    found, message = health(moment.obj)
    assert found == moment.health, message
    assert message.strip()
    assert "nil" not in message.split()


def test_every_phase_and_state_is_among_them() -> None:
    assert {status["phase"] for status in of("Migration")} == {str(phase) for phase in Phase}
    states = {status["cutover"]["state"] for status in of("Migration") if "cutover" in status}
    assert states == {str(state) for state in CutoverState}
    assert {status["phase"] for status in of("Validation")} == {str(phase) for phase in ValidationPhase}
    assert {status.get("result") for status in of("Validation")} - {None} == {str(result) for result in CheckResult}
    assert {status["phase"] for status in of("ReverseSync")} == {str(phase) for phase in ReverseSyncPhase}


@pytest.mark.parametrize("make", [forth, there_and_back, timed_out])
def test_through_whole_lives_healthy_means_that_the_traffic_may_be_at_the_target(make: Callable[[], Told]) -> None:
    seen = make().seen
    assert len(seen) > 15
    for obj in seen:
        found, message = health(obj)
        assert found in ("Healthy", "Progressing", "Suspended"), message
        if obj["kind"] == "Migration":
            there = (obj["status"]["phase"], obj["status"]["cutover"]["state"]) == ("Completed", "Switched")
            assert (found == "Healthy") <= there


def test_what_waits_for_a_person_names_what_to_do() -> None:
    plan = migration("awaiting-approval")["status"]["plan"]["hash"]
    approval = f"approve plan {plan} by spec.cutover.approvedPlan (in Argo CD: the action approve)"
    assert health(migration("awaiting-approval")) == ("Suspended", approval)
    assert "approve it anew" in health(migration("timed-out"))[1]
    assert "point the application at the source" in health(migration("rolled-back"))[1]
    assert health(migration("freezing"))[1].startswith("Freezing: stop the writes to the source now")
    assert "MySQL refused the password; in mysql:3306" in health(migration("stalled"))[1]
    assert "the action resume" in health(migration("paused"))[1]
    assert "SlotInDanger" in health(BY_NAME["ReverseSync", "slot-in-danger"])[1]


def test_an_approval_before_its_time_says_when() -> None:
    obj = live_with(migration("awaiting-approval"), "CutoverDue", "False", "not before 2026-11-22")
    assert health(obj)[1].endswith("; not before 2026-11-22")


def live_with(obj: Json, kind: str, status: str, message: str) -> Json:
    """The same with another word in one condition."""
    told = [
        each | ({"status": status, "message": message} if each["type"] == kind else {})
        for each in obj["status"]["conditions"]
    ]
    return {**obj, "status": {**obj["status"], "conditions": told}}


def test_others_who_may_write_hold_it_back_only_where_that_is_asked_for() -> None:
    obj = live_with(migration("approved"), "TargetExclusive", "False", "the role app may write")
    assert "the role app may write" not in health(obj)[1]
    asked = {**obj, "spec": {**obj["spec"], "cutover": {"targetExclusive": "Require"}}}
    assert health(asked) == ("Progressing", "Following, these hold the cutover back: the role app may write")


@pytest.mark.parametrize("kind", list(MODELS))
@pytest.mark.parametrize("status", [None, {}, {"conditions": []}, {"phase": "Later", "observedGeneration": 9}])
def test_a_status_that_says_little_is_progressing(kind: str, status: Json | None) -> None:
    obj: Json = {"kind": kind, "metadata": {"name": "shop", "generation": 2}, "spec": {}}
    if status is not None:
        obj["status"] = status
    assert health(obj)[0] == "Progressing"
    if kind != "Validation":
        assert offered(obj) <= {"pause", "cancel"}


@pytest.mark.parametrize("kind", list(MODELS))
def test_a_change_that_the_operator_has_not_seen_is_progressing(kind: str) -> None:
    old = next(moment.obj for moment in MOMENTS if moment.kind == kind and moment.health == "Healthy")
    new = {**old, "metadata": {**old["metadata"], "generation": old["metadata"]["generation"] + 1}}
    assert health(new) == ("Progressing", "the operator has not seen the newest change of the spec yet")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("new", {"pause", "cancel"}),
        ("snapshot", {"pause", "cancel"}),
        ("following-not-ready", {"approve", "pause", "cancel"}),
        ("awaiting-approval", {"approve", "pause", "cancel"}),
        ("approved-not-seen", {"pause", "cancel"}),
        ("approved", {"pause", "cancel"}),
        ("draining", {"pause", "cancel"}),
        ("completed", set()),
        ("ready-to-go-back", {"rollback"}),
        ("rolling-back", {"withdraw-rollback"}),
        ("rollback-waits", {"withdraw-rollback"}),
        ("rollback-given-up", {"withdraw-rollback"}),
        ("rolled-back", {"approve", "pause", "cancel"}),
        ("timed-out", {"approve", "pause", "cancel"}),
        ("paused", {"approve", "resume", "cancel"}),
        ("cancelling", set()),
        ("cancelled", set()),
    ],
)
def test_the_actions_that_are_offered(name: str, expected: set[str]) -> None:
    assert offered(migration(name)) == expected


PATCHES: dict[str, Callable[[Json], Json]] = {
    "pause": lambda _: {"spec": {"paused": True}},
    "resume": lambda _: {"spec": {"paused": False}},
    "cancel": lambda _: {"spec": {"cancel": True}},
    "rollback": lambda _: {"spec": {"cutover": {"rollback": True}}},
    "withdraw-rollback": lambda _: {"spec": {"cutover": {"rollback": False}}},
    "approve": lambda obj: {"spec": {"cutover": approval_of(obj)}},
}


def approval_of(obj: Json) -> Json:
    given: Json = {"approvedPlan": obj["status"]["plan"]["hash"]}
    return given | ({"rollback": False} if obj["spec"].get("cutover", {}).get("rollback") else {})


@pytest.mark.parametrize("moment", STEERABLE, ids=name_of)
def test_an_action_changes_its_own_field_and_nothing_else(moment: Moment) -> None:
    for name in offered(moment.obj):
        patch = act(name, moment.obj)
        assert patch == PATCHES[name](moment.obj)
        MODELS[moment.kind].model_validate({key: merged(moment.obj, patch)[key] for key in ("metadata", "spec")})


@pytest.mark.parametrize("moment", MOMENTS, ids=name_of)
def test_the_defaults_that_an_api_server_fills_in_change_nothing(moment: Moment) -> None:
    spec = MODELS[moment.kind].model_validate({key: moment.obj[key] for key in ("metadata", "spec")}).spec
    whole = {**moment.obj, "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True)}
    assert health(whole) == health(moment.obj)
    for name in offered(whole) if moment.kind != "Validation" else ():
        assert act(name, whole) == PATCHES[name](whole)


@pytest.mark.parametrize(
    ("name", "action", "why"),
    [
        ("new", "approve", "it is Pending"),
        ("snapshot", "approve", "it is Snapshot"),
        ("draining", "approve", "it is CuttingOver"),
        ("completed", "approve", "it is Completed"),
        ("approved-not-seen", "approve", "has not seen the newest change"),
        ("awaiting-approval", "rollback", "only what is Completed"),
        ("completed", "rollback", "it cannot go back now: spec.reverseSync.enabled is false"),
        ("rollback-given-up", "rollback", "withdraw it first"),
        ("completed", "cancel", "it is Completed already"),
        ("cancelled", "cancel", "it is Cancelled already"),
        ("completed", "pause", "it is Completed already"),
        ("cancelled", "pause", "it is Cancelled already"),
    ],
)
def test_an_action_that_comes_too_late_or_too_early_refuses_with_the_reason(name: str, action: str, why: str) -> None:
    assert action not in offered(migration(name))
    with pytest.raises(ScriptFailed, match=why):
        act(action, migration(name))


def test_a_way_back_that_has_ended_is_not_paused() -> None:
    ended = BY_NAME["ReverseSync", "ended"]
    assert offered(ended) == set()
    with pytest.raises(ScriptFailed, match="it is Stopped already"):
        act("pause", ended)


def test_one_that_is_paused_at_the_switch_can_be_resumed() -> None:
    """Its hooks begin no more until then."""
    obj = live_with(migration("hook-runs"), "Paused", "True", "")
    paused = {**obj, "spec": {**obj["spec"], "paused": True}}
    found, message = health(paused)
    assert (paused["status"]["phase"], found) == ("Completed", "Suspended")
    assert message.startswith("hook start (after switch) has not ended")
    assert "the action resume" in message
    assert offered(paused) == {"resume"}


def test_every_action_is_defined_and_discovered_by_the_same_name() -> None:
    for kind in ("Migration", "ReverseSync"):
        listed = actions(BY_NAME[kind, "paused"])
        assert sorted(listed) == argo_files.acts_of(kind)
        assert all(about.keys() == {"displayName", "iconClass"} for _, about in listed.values())


def test_a_life_goes_on_from_what_the_actions_patch() -> None:
    life = Told()
    life.until_phase(Phase.FOLLOWING)
    for name, health_then in (("pause", "Suspended"), ("resume", "Progressing")):
        click(life, name)
        life.go(3)
        assert health(live(life.runtime.resource))[0] == health_then
    life.until_state(CutoverState.AWAITING_APPROVAL)
    click(life, "approve")
    life.until_phase(Phase.COMPLETED)
    assert health(live(life.runtime.resource))[0] == "Healthy"


def click(life: Told, action: str) -> None:
    """What Argo CD does when a person clicks."""
    obj = live(life.runtime.resource)
    assert action in offered(obj)
    spec = MigrationSpec.model_validate(merged(obj, act(action, obj))["spec"])
    life.runtime.patch(**{field: getattr(spec, field) for field in MigrationSpec.model_fields})


@pytest.mark.parametrize(
    "text",
    ["return ('x'):upper()", "return string.format('x')", "return io.open('x')", "return os.execute('x')",
     "return require('os')", "return math.floor(1)", "return debug.traceback()", "return python.eval('1')",
     "return load('return 1')", "while true do end"],
)  # fmt: skip
def test_a_script_has_no_more_here_than_argo_cd_opens(text: str) -> None:
    with pytest.raises(ScriptFailed):
        run(text, {})


def test_a_script_meets_and_gives_what_it_does_in_argo_cd() -> None:
    obj: Json = {"a": [], "b": {}, "c": None, "d": [{"e": 1.5}, "x"], "f": True}
    assert run("return obj", obj) == {"a": [], "b": [], "d": [{"e": 1.5}, "x"], "f": True}
    with pytest.raises(ScriptFailed, match="keys"):
        run("return {[2] = 1}", {})


def test_no_script_leaves_a_global_behind() -> None:
    guard = "setmetatable(_G, {__newindex = function(_, name) error('it makes the global ' .. name, 0) end})\n"
    for path in SCRIPTS.rglob("*.lua"):
        kind = path.relative_to(SCRIPTS).parts[0]
        for moment in MOMENTS:
            if moment.kind == kind and (path.parent.name not in PATCHES or path.parent.name in offered(moment.obj)):
                run(guard + path.read_text("utf-8"), moment.obj)


def test_the_tree_is_as_generated() -> None:
    files = argo_files.render(MOMENTS)
    for name, text in files.items():
        assert (ARGOCD / name).read_text("utf-8") == text, f"{name}: run make generate and commit"
    assert {*ARGOCD.rglob("*.yaml")} == {ARGOCD / name for name in files}


def test_the_config_map_holds_the_scripts_under_the_keys_that_argo_cd_reads() -> None:
    data = yaml.safe_load((ARGOCD / "argocd-cm.yaml").read_text("utf-8"))["data"]
    for kind in MODELS:
        assert data.pop(f"resource.customizations.health.whimbrel.dev_{kind}") == script(kind)
    for kind in ("Migration", "ReverseSync"):
        told = yaml.safe_load(data.pop(f"resource.customizations.actions.whimbrel.dev_{kind}"))
        assert told["discovery.lua"] == script(kind, "actions/discovery.lua")
        given = {each["name"]: each["action.lua"] for each in told["definitions"]}
        assert given == {name: script(kind, f"actions/{name}/action.lua") for name in argo_files.acts_of(kind)}
    assert data == {}


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


@pytest.mark.parametrize("path", sorted(SCRIPTS.rglob("health_test.yaml")), ids=lambda path: path.parent.name)
def test_the_health_tests_as_argo_cd_runs_them(path: Path) -> None:
    for test in _read(path)["tests"]:
        wanted = test["healthStatus"]
        assert health(_read(path.parent / test["inputPath"])) == (wanted["status"], wanted["message"])


@pytest.mark.parametrize("path", sorted(SCRIPTS.rglob("action_test.yaml")), ids=lambda path: path.parts[-3])
def test_the_action_tests_as_argo_cd_runs_them(path: Path) -> None:
    told = _read(path)
    for test in told["discoveryTests"]:
        wanted = {each["name"]: not each["disabled"] for each in test["result"]}
        assert {name: on for name, (on, _) in actions(_read(path.parent / test["inputPath"])).items()} == wanted
    assert {test["action"] for test in told["actionTests"]} == set(argo_files.acts_of(path.parts[-3]))
    for test in told["actionTests"]:
        obj = _read(path.parent / test["inputPath"])
        done = merged(obj, act(test["action"], obj))
        assert done == _read(path.parent / test["expectedOutputPath"])
        assert done != obj


def _fields(model: Any, pointer: str) -> None:
    """Follow a JSON pointer through a model's aliases."""
    for word in pointer.split("/")[2:]:
        field = next(each for name, each in model.model_fields.items() if (each.alias or name) == word)
        model = field.annotation


def test_the_example_leaves_to_the_actions_what_they_change() -> None:
    operator, ours = yaml.safe_load_all(APPLICATIONS.read_text("utf-8"))
    assert "ServerSideApply=true" in operator["spec"]["syncPolicy"]["syncOptions"]
    assert (ROOT / operator["spec"]["source"]["path"] / "Chart.yaml").is_file()
    ignored = {each["kind"]: set(each["jsonPointers"]) for each in ours["spec"]["ignoreDifferences"]}
    for kind, spec in (("Migration", MigrationSpec), ("ReverseSync", ReverseSyncSpec)):
        for pointer in ignored[kind]:
            _fields(spec, pointer)
        assert ignored[kind] == _touched(kind)
    assert "RespectIgnoreDifferences=true" in ours["spec"]["syncPolicy"]["syncOptions"]
    for path in (ROOT / ours["spec"]["source"]["path"]).glob("*.yaml"):
        (found,) = load_manifests(path.read_text("utf-8"), str(path))
        assert isinstance(found, Migration)
        assert found.spec.model_dump(include={"paused", "cancel"}) == {"paused": False, "cancel": False}


def _touched(kind: str) -> set[str]:
    """The pointers to all that the actions of a kind change."""
    patches = (act(name, moment.obj) for moment in STEERABLE if moment.kind == kind for name in offered(moment.obj))
    return {pointer for patch in patches for pointer in _pointers(patch, "")}


def _pointers(patch: Json, before: str) -> list[str]:
    found: list[str] = []
    for key, item in patch.items():
        path = f"{before}/{key}"
        found += _pointers(item, path) if isinstance(item, dict) else [path]
    return found


def _rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading of docs/argocd.md."""
    lines = re.search(r"(?:^\|.*\n)+", PAGE.split(f"\n## {heading}\n", 1)[1], re.MULTILINE)
    assert lines, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()[2:]]


def test_the_page_tells_the_health_of_every_phase_and_state() -> None:
    told = {word: row[1] for row in _rows("What you see") for word in re.findall(r"`(\w+)`", row[0])}
    assert told.keys() == {str(each) for each in (*Phase, *CutoverState)}
    for moment in MOMENTS:
        if moment.kind == "Migration" and moment.name in PLAIN:
            where = moment.obj["status"]["cutover"]["state"]
            word = where if where != "NotReady" else moment.obj["status"]["phase"]
            assert told[word] == moment.health, moment.name


PLAIN = (
    "preflight", "schema", "snapshot", "catch-up", "following-not-ready", "awaiting-approval", "freezing", "draining",
    "final-check", "arming-reverse", "timed-out", "completed", "rolling-back", "rolled-back",
)  # fmt: skip


def test_the_page_tells_every_action() -> None:
    told = {word for row in _rows("Actions") for word in re.findall(r"`([\w-]+)`", row[0])}
    assert told == set(argo_files.acts_of("Migration"))
    assert set(argo_files.acts_of("ReverseSync")) <= told
