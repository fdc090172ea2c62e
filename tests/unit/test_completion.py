"""Completion: the shells' scripts, what kubectl is told, the names of resources."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.kept_states import keep, keep_validation
from whimbrel_cli.commands.completion import for_kubectl
from whimbrel_cli.exits import Exit
from whimbrel_cli.main import invoke, whimbrel


@pytest.fixture(autouse=True)
def _kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIMBREL_STATE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    keep_validation(keep(tmp_path, "following"), "weekly")


@pytest.mark.parametrize(("shell", "sign"), [("bash", "complete -o"), ("zsh", "#compdef"), ("fish", "complete ")])
def test_each_shell_gets_its_script(shell: str, sign: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["completion", shell]) == Exit.DONE
    shown = capsys.readouterr().out
    assert sign in shown
    assert "_WHIMBREL_COMPLETE" in shown


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["completion", "tcsh"]) == Exit.USAGE
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in capsys.readouterr().err


def completed(*words: str) -> list[str]:
    """What whimbrel itself answers a shell that asks for the last of the words."""
    told = os.environ | {
        "_WHIMBREL_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["whimbrel", *words]),
        "COMP_CWORD": str(len(words)),
    }
    program = "from whimbrel_cli.main import invoke; invoke()"
    done = subprocess.run([sys.executable, "-c", program], env=told, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_bash_is_told_the_names_of_the_resources() -> None:
    assert completed("status", "s") == ["shop"]


def test_bash_itself_completes_with_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    invoke(["completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "whimbrel").write_text(f'#!/bin/sh\nexec {sys.executable} -m whimbrel_cli "$@"\n')
    (tmp_path / "whimbrel").chmod(0o755)
    typed = (
        "source script; COMP_WORDS=(whimbrel approve s); COMP_CWORD=2; _whimbrel_completion whimbrel; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", typed], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["shop"]


def test_kubectl_is_told_commands_with_what_they_do_and_no_files() -> None:
    lines = for_kubectl(whimbrel, ["re"]).splitlines()
    assert [line.partition("\t")[0] for line in lines] == ["report", "resume", ":4"]
    assert lines[0].partition("\t")[2].startswith("Writes the record")


def test_kubectl_completes_files_where_a_file_is_meant() -> None:
    assert for_kubectl(whimbrel, ["assess", "sh"]).splitlines()[-1] == ":4"
    assert for_kubectl(whimbrel, ["--kubeconfig", ""]) == ":0"


def test_choices_and_options_are_proposed() -> None:
    assert for_kubectl(whimbrel, ["tree", "-o", ""]).split() == ["table", "wide", "json", "yaml", ":4"]
    assert "--follow" in for_kubectl(whimbrel, ["logs", "--f"])


def test_a_cluster_that_is_not_there_completes_nothing_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert for_kubectl(whimbrel, ["status", "s"]) == ":4"
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")
