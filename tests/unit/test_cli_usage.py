"""The command line: help that teaches, errors in a few lines, exit codes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from support.live_states import SPEC, migration
from whimbrel_api.manifests import load_manifests
from whimbrel_api.migration import Migration
from whimbrel_api.validation import Validation
from whimbrel_cli import inputs
from whimbrel_cli.commands.run import outcome
from whimbrel_cli.exits import Exit
from whimbrel_cli.main import invoke, whimbrel
from whimbrel_cli.overlay import addresses, applied, merged
from whimbrel_cli.tools import psql_arguments, write_script

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "mysql-to-aurora-dsql.yaml"
HOOKED = EXAMPLE.with_name("cutover-with-hooks.yaml")
COMMANDS = sorted(whimbrel.commands)


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIMBREL_STATE", str(tmp_path / "state"))


def test_the_commands_are_these() -> None:
    assert COMMANDS == [
        "approve",
        "assess",
        "cancel",
        "completion",
        "cutover",
        "delete",
        "demo",
        "diff",
        "logs",
        "pause",
        "report",
        "resume",
        "rollback",
        "run",
        "status",
        "testbed",
        "traffic",
        "tree",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_help_teaches_by_example_and_names_the_exit_codes(command: str) -> None:
    result = CliRunner().invoke(whimbrel, [command, "--help"])
    assert result.exit_code == 0
    assert f"  whimbrel {command}" in result.output
    assert "Example" in result.output
    assert "130  interrupted" in result.output


def _spelt(option: click.Option) -> str:
    """An option as the reference writes it: -n/--namespace, --prefix/--no-prefix."""
    return "/".join(sorted([*option.opts, *option.secondary_opts], key=lambda each: (len(each) > 2, "--no-" in each)))


def test_the_reference_has_every_command_with_its_options_and_no_other() -> None:
    page = (EXAMPLE.parents[1] / "docs" / "cli.md").read_text(encoding="utf-8")
    before, _, table = page.partition("## Every command\n")[2].partition("| command |")
    rows = [line.split("|")[1:3] for line in table.splitlines()[2:] if line.startswith("|")]
    told = {name.strip(" `"): re.findall(r"`([^`]+)`", options) for name, options in rows}
    assert told == {
        name: [_spelt(each) for each in command.params if isinstance(each, click.Option)]
        for name, command in whimbrel.commands.items()
    }
    first = {_spelt(each) for each in whimbrel.params if isinstance(each, click.Option)}
    assert {*re.findall(r"`(--[^`]+)`", before)} == first


def test_the_first_help_says_where_to_start() -> None:
    result = CliRunner().invoke(whimbrel, ["-h"])
    assert "Start here:" in result.output
    assert all(f"  {command} " in result.output for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Usage: whimbrel"),
        (["nothing"], "No such command 'nothing'"),
        (["run"], "Missing argument 'FILE...'"),
        (["run", "/no/such.yaml"], "whimbrel: /no/such.yaml cannot be read: No such file or directory."),
        (["run", "/"], "whimbrel: / cannot be read: Is a directory."),
        (["run", str(EXAMPLE), "--timeout", "5x"], "write it like 200ms, 5s, 10m or 1h30m"),
        (["run", str(EXAMPLE)], "spec.source.mysql.credentialsSecretRef: the Secret 'mysql-source' was not given"),
        (["run", str(HOOKED)], "Migration/shop has hooks or switches, which are Jobs of a cluster."),
        (["status", "-w"], "--watch shows one resource"),
        (["status", "shop"], "No resource 'shop' in the namespace 'default'.\nThere are none; start one with"),
        (["approve", "shop"], "No Migration 'shop' in the namespace 'default'."),
        (["cancel", "shop"], "No Migration 'shop'"),
        (["testbed", "oracle"], "'oracle' is not one of 'mysql', 'postgres', 'dsql'"),
        (["traffic", "mysql", "--port", "0"], "Invalid value for '--port'"),
    ],
)  # fmt: skip
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(arguments) == Exit.USAGE
    assert message in capsys.readouterr().err


def test_a_malformed_manifest_ends_with_2_and_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(EXAMPLE.read_text().replace("port: 3306", "prot: 3306").replace("Manual", "Manul"))
    assert invoke(["run", str(file)]) == Exit.USAGE
    lines = capsys.readouterr().err.splitlines()
    assert "spec.source.mysql.prot: unknown field, did you mean port?" in lines[0]
    assert "spec.cutover.mode: given 'Manul'; allowed: Manual, Automatic" in lines[1]
    assert lines[2] == "Correct the manifest and run it again; nothing was started."


def test_a_file_that_is_no_text_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_bytes(b"\xff\xfe")
    assert invoke(["run", str(tmp_path / "a")]) == Exit.USAGE
    assert "is no UTF-8 text" in capsys.readouterr().err


def test_a_server_that_was_never_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["traffic", "mysql", "--port", "1", "--for", "1s"]) == Exit.FAILED
    assert "whimbrel: MySQL at 127.0.0.1:1 refused (OperationalError 2003)." in capsys.readouterr().err


def test_an_error_that_nobody_foresaw_shows_its_type_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(whimbrel, "invoke", fail)
    assert invoke(["status"]) == Exit.FAILED
    shown = capsys.readouterr().err
    assert "An error that whimbrel does not know: RuntimeError." in shown
    assert "hunter2" not in shown
    monkeypatch.setenv("WHIMBREL_TRACEBACK", "1")
    with pytest.raises(RuntimeError):
        invoke(["status"])


def test_a_missing_test_bed_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "whimbrel_testbed.__main__", None)
    assert invoke(["testbed", "mysql"]) == Exit.FAILED
    shown = capsys.readouterr().err
    assert "This command needs the test bed, which is not installed (whimbrel_testbed.__main__)." in shown
    assert "pip install 'whimbrel[chart,cli,operator,testbed,worker]'" in shown


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(whimbrel, "invoke", interrupt)
    assert invoke(["status"]) == Exit.INTERRUPTED
    assert "Interrupted." in capsys.readouterr().err


def _check(result: str | None) -> Validation:
    status = {"phase": "Completed" if result else "Running", "result": result}
    spec = {"migrationRef": {"name": "shop"}}
    return Validation.model_validate({"metadata": {"name": "v"}, "spec": spec, "status": status})


@pytest.mark.parametrize(
    ("states", "timed_out", "code"),
    [
        (["completed"], False, Exit.DONE),
        (["cancelled"], False, Exit.FAILED),
        (["completed", "stalled"], False, Exit.STALLED),
        (["stalled"], True, Exit.STALLED),
        (["snapshot"], True, Exit.TIMED_OUT),
    ],
)
def test_the_exit_code_is_the_worst_of_the_migrations(states: list[str], timed_out: bool, code: Exit) -> None:
    assert outcome([migration(state) for state in states], timed_out=timed_out) is code


@pytest.mark.parametrize(
    ("result", "code"), [("Equal", Exit.DONE), ("Different", Exit.DIFFERENT), ("Inconclusive", Exit.DIFFERENT)]
)
def test_the_exit_code_of_a_comparison_is_its_result(result: str, code: Exit) -> None:
    assert outcome([_check(result)]) is code


def test_the_example_is_a_good_manifest_and_takes_other_addresses() -> None:
    text = applied(EXAMPLE.read_text(), addresses("127.0.0.1", 3307, "localhost", 5433, "eu-west-1"))
    (read,) = load_manifests(text, "example")
    (before,) = load_manifests(EXAMPLE.read_text(), "example")
    assert isinstance(read, Migration)
    assert isinstance(before, Migration)
    assert read.spec.source.mysql is not None
    assert read.spec.target.aurora_dsql is not None
    assert (read.spec.source.mysql.host, read.spec.source.mysql.port) == ("127.0.0.1", 3307)
    assert (read.spec.target.aurora_dsql.endpoint, read.spec.target.aurora_dsql.port) == ("localhost", 5433)
    changed = {"source": before.spec.source, "target": before.spec.target}
    assert read.spec.model_copy(update=changed) == before.spec


def test_merging_goes_into_mappings_and_replaces_all_else() -> None:
    assert merged({"a": {"b": 1, "c": [1]}, "d": 1}, {"a": {"c": [2]}, "d": {"e": 1}}) == {
        "a": {"b": 1, "c": [2]},
        "d": {"e": 1},
    }


def test_references_to_secrets_are_found_with_their_paths() -> None:
    (example,) = load_manifests(EXAMPLE.read_text(), "example")
    assert isinstance(example, Migration)
    assert inputs.references(example) == [
        ("spec.source.mysql.credentialsSecretRef", "mysql-source", ("username", "password")),
        ("spec.source.mysql.tls.caSecretRef", "mysql-ca", ("ca.crt",)),
        ("spec.target.auroraDSQL.credentialsSecretRef", "dsql-target", ("accessKeyId", "secretAccessKey")),
    ]


def test_secrets_are_read_as_kubernetes_mounts_them(tmp_path: Path) -> None:
    for name, content in {
        "a/password": b"x\n",
        "a/two-lines": b"x\ny\n",
        "a/..data/password": b"no",
        "b/k": b"\x00",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert inputs.read_secrets(tmp_path) == {"a": {"password": b"x", "two-lines": b"x\ny\n"}, "b": {"k": b"\x00"}}


def test_a_secret_without_the_key_that_is_needed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = {"apiVersion": "whimbrel.dev/v1alpha1", "kind": "Migration", "metadata": {"name": "shop"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "source"}}
    documents = [header | {"spec": SPEC}, secret | {"stringData": {"username": "u", "pasword": "hunter2"}}]
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    assert invoke(["run", str(file)]) == Exit.USAGE
    shown = capsys.readouterr().err
    assert "spec.source.mysql.credentialsSecretRef: the Secret 'source' has no key password" in shown
    assert "hunter2" not in shown


def test_an_empty_store_is_said_and_is_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["status"]) == Exit.DONE
    assert "There is no resource here yet." in capsys.readouterr().out
    assert invoke(["status", "-o", "json"]) == Exit.DONE
    assert json.loads(capsys.readouterr().out) == {"apiVersion": "v1", "kind": "List", "items": []}


def test_a_script_for_looking_around_passes_arguments_on_and_holds_no_password(tmp_path: Path) -> None:
    password = tmp_path / "pass word"
    password.write_text("hunter2")
    write_script(tmp_path / "show", ["sh", "-c", 'echo "$SECRET|$1|$2"', "it's"], {"SECRET": password})
    done = subprocess.run([tmp_path / "show", "a b", "c"], capture_output=True, text=True, check=True)
    assert done.stdout == "hunter2|a b|c\n"
    assert "hunter2" not in (tmp_path / "show").read_text()
    arguments = psql_arguments(Path("psql"), {"host": "127.0.0.1", "user": "o'neil", "password": "hunter2"})
    assert arguments == ["psql", r"host='127.0.0.1' user='o\'neil'"]
