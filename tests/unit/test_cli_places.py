"""Which cluster is meant, how its answers read, and what is said about an operator, without a cluster."""

import json
import re
import shlex
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.live_states import migration
from whimbrel_cli.cluster_place import idleness
from whimbrel_cli.exits import Exit
from whimbrel_cli.guidance import Caller, next_step
from whimbrel_cli.main import invoke, main, whimbrel
from whimbrel_cli.naming import PLUGIN
from whimbrel_operator.errors import ClusterAway, Forbidden, NotFound, NotInstalled, OperatorError, Refused
from whimbrel_operator.runtime.cluster_access import Cluster, refusal
from whimbrel_operator.runtime.cluster_store import OperatorSeen, kept_in_git, operator_seen, report_of

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
NOBODY = 9  # the discard port: nothing listens there


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIMBREL_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


def kubeconfig(path: Path, **namespaces: str) -> Path:
    """A kubeconfig with a context for each name, the first of them the current one; no server answers."""
    value = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{NOBODY}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [
            {"name": name, "context": {"cluster": "c", "user": "u", **({"namespace": space} if space else {})}}
            for name, space in namespaces.items()
        ],
        "current-context": next(iter(namespaces)),
    }
    path.write_text(yaml.safe_dump(value))
    return path


def status(code: int, **told: Any) -> bytes:
    return json.dumps({"kind": "Status", "code": code, **told}).encode()


@pytest.mark.parametrize(
    ("code", "body", "kind", "words"),
    [
        (404, b"404 page not found\n", NotInstalled, "kubectl apply --server-side -f crds/"),
        (404, status(404, message="the server could not find", details={}), NotInstalled, "does not know Whimbrel"),
        (404, status(404, message='migrations "a" not found', details={"name": "a"}), NotFound, '"a" not found'),
        (403, status(403, message='User "u" cannot patch resource "migrations"'), Forbidden, "cannot patch resource"),
        (401, status(401, message="Unauthorized"), Refused, "sign in anew"),
        (409, status(409, message="the object has been modified"), Refused, "the object has been modified"),
        (422, status(422, message="spec: Invalid value: source may not change"), Refused, "source may not change"),
        (503, b"upstream is away", ClusterAway, "503: upstream is away"),
        (400, b"", Refused, "status 400"),
    ],
)
def test_a_refusal_keeps_the_servers_words(code: int, body: bytes, kind: type[OperatorError], words: str) -> None:
    error = refusal(code, body, "https://c")
    assert type(error) is kind
    assert words in str(error)


def test_the_context_decides_the_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = kubeconfig(tmp_path / "k", one="shop", two="", three="stock")
    assert Cluster(file).namespace == "shop"
    assert Cluster(file, "two").namespace == "default"
    assert Cluster(file, "three").namespace == "stock"
    monkeypatch.setenv("KUBECONFIG", f"/no/such:{file}")
    assert Cluster().namespace == "shop"


def test_without_a_kubeconfig_it_is_said_where_one_was_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["--cluster", "status"]) == Exit.USAGE
    shown = capsys.readouterr().err
    assert f"there is no kubeconfig; in {tmp_path}/.kube/config" in shown
    assert "--kubeconfig FILE" in shown


def test_a_context_that_is_not_there_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = kubeconfig(tmp_path / "k", one="shop")
    assert invoke(["--kubeconfig", str(file), "--context", "nope", "status"]) == Exit.USAGE
    shown = capsys.readouterr().err
    assert "Expected object with name nope" in shown
    assert "kubectl config get-contexts" in shown


def test_a_damaged_kubeconfig_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "k").write_text("apiVersion: [")
    assert invoke(["--kubeconfig", str(tmp_path / "k"), "status"]) == Exit.USAGE
    assert "the kubeconfig cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["status"], ["status", "shop"], ["pause", "shop"]])
def test_a_server_that_is_away_is_said_in_two_lines(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["--kubeconfig", str(kubeconfig(tmp_path / "k", one="")), *command]) == Exit.FAILED
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"whimbrel: the API server does not answer; in the cluster http://127.0.0.1:{NOBODY}; ")
    assert first.endswith("Connection refused")
    assert "kubectl config current-context" in second


@pytest.mark.parametrize("option", [["--cluster"], ["--context", "x"], ["--kubeconfig", "k"]])
def test_run_is_for_this_machine_alone(
    option: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    kubeconfig(tmp_path / "k", x="")
    (tmp_path / "shop.yaml").touch()
    assert invoke([*option, "run", "shop.yaml"]) == Exit.USAGE
    assert "kubectl apply -f FILE" in capsys.readouterr().err


def test_under_kubectls_name_the_cluster_is_meant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/kubectl-whimbrel", "status"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == Exit.USAGE
    assert "there is no kubeconfig" in capsys.readouterr().err
    assert invoke(["run", "x"], PLUGIN) == Exit.USAGE
    assert invoke(["status"]) == Exit.DONE


@pytest.mark.parametrize(
    ("state", "caller", "line"),
    [
        ("following", Caller(), "whimbrel approve shop --plan "),
        ("following", Caller(PLUGIN, "default"), "kubectl whimbrel approve shop --plan "),
        ("following", Caller("whimbrel --cluster", "stock"), "whimbrel --cluster approve shop -n default --plan "),
    ],
)
def test_the_next_step_is_called_as_the_command_was(state: str, caller: Caller, line: str) -> None:
    assert f": {line}" in next_step(migration(state), caller)


def _plugin_lines() -> set[str]:
    """Every command line of the plugin in the documents and in the help."""
    root = Path(__file__).parents[2]
    texts = [page.read_text(encoding="utf-8") for page in (root / "README.md", *(root / "docs").glob("*.md"))]
    texts += [whimbrel.help or "", *(command.help or "" for command in whimbrel.commands.values())]
    found = {line for text in texts for line in re.findall(r"kubectl whimbrel\s+([a-z-][^`\n|;>]*)", text)}
    return {re.split(r"  +", line)[0].strip() for line in found}


@pytest.mark.parametrize("line", sorted(_plugin_lines()))
def test_every_command_line_of_the_plugin_parses(line: str) -> None:
    context = whimbrel.make_context(PLUGIN, shlex.split(line, comments=True))
    name, command, rest = whimbrel.resolve_command(context, [*context._protected_args, *context.args])
    assert command is not None
    assert command.make_context(name, rest or ["NAME"])


def lease(holder: str = "one", renewed: datetime | None = NOW, **spec: Any) -> dict[str, Any]:
    times = {"renewTime": renewed.strftime("%Y-%m-%dT%H:%M:%S.%fZ")} if renewed else {}
    return {"metadata": {"namespace": "ops"}, "spec": {"holderIdentity": holder, **times, **spec}}


@pytest.mark.parametrize(
    ("found", "later", "alive"),
    [
        (lease(leaseDurationSeconds=15), 29, True),
        (lease(leaseDurationSeconds=15), 31, False),
        (lease(), 29, True),
        (lease(holder="", leaseDurationSeconds=1), 0, False),
        (lease(renewed=None), 0, False),
        ({"metadata": {"namespace": "ops"}}, 0, False),
    ],
)
def test_an_operator_lives_while_its_lease_is_renewed(found: dict[str, Any], later: int, alive: bool) -> None:
    assert operator_seen(found, NOW + timedelta(seconds=later)).alive is alive


def test_nobody_at_work_is_said_and_nothing_where_it_is_not_known() -> None:
    old = OperatorSeen("ops", "one", NOW - timedelta(seconds=200), alive=False)
    assert idleness(None, NOW) == ""
    assert idleness([old, OperatorSeen("other", "two", NOW, alive=True)], NOW) == ""
    assert "no namespace has a Lease whimbrel-operator" in idleness([], NOW)
    assert "(last renewed 3 m 20 s ago); look: kubectl get pods -n ops" in idleness([old], NOW)
    assert "(never renewed)" in idleness([OperatorSeen("ops", "", None, alive=False)], NOW)


@pytest.mark.parametrize(
    ("metadata", "who"),
    [
        ({}, ""),
        ({"annotations": None, "labels": {"app.kubernetes.io/instance": "x"}}, ""),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}, "Argo CD"),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "x"}}, "Flux"),
    ],
)
def test_who_keeps_it_as_git_has_it_shows_by_his_marks(metadata: dict[str, Any], who: str) -> None:
    assert kept_in_git(metadata) == who


def test_a_report_of_another_version_is_none_that_could_stop_a_view() -> None:
    word = {"task": "stream", "taskId": "stream", "state": "Running", "observedAt": NOW.isoformat()}
    found = report_of({"status": word})
    assert found is not None
    assert found.task_id == "stream"
    assert report_of({}) is None
    assert report_of({"status": word | {"task": "levitate"}}) is None
    assert report_of({"status": word | {"aNewField": 1}}) is None
