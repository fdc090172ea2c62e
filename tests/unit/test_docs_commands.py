"""Every command that README and docs show is run by a test, or says what it needs that no test has.

`whimbrel` is parsed by its own command line here, make's targets are looked up, and the lines of kubectl and helm are
those that tests/chart/test_docs_on_cluster.py runs on a real API server.
"""

import re
from pathlib import Path

import click
import pytest

from support.docs_cluster import helm, kubectl
from support.docs_commands import NEEDS, PAGES, PROGRAMS, ROOT, Block, Command, blocks, commands, inline, simple
from whimbrel_cli.main import whimbrel

# A reader's own tools, behind a pipe or before it.
READERS = {"echo", "export", "jq"}
LANGUAGES = {"", "sh", "console", "text", "yaml", "json", "sql"}
OUTSIDE = {"AWS": "aws|AWS", "Argo CD": "argocd", "a container engine": "docker|buildah", "PolarDB": "psql"}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = commands()
INLINE = [each for each in inline() if "…" not in each.text]


def _told(command: Command) -> str:
    return f"{command.place} {' '.join(command.words)}"[:100]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda each: each.place)
def test_every_block_says_what_it_is(block: Block) -> None:
    assert block.language in LANGUAGES
    if not block.shell:
        assert not [line for line in block.lines if re.match(rf"\$? ?({'|'.join(PROGRAMS)}) [a-z]", line)]
    if block.needs:
        assert block.needs in NEEDS
        # What a test can run is not excused.
        assert re.search(OUTSIDE[block.needs], "\n".join(block.lines)), f"nothing in it needs {block.needs}"


@pytest.mark.parametrize("command", COMMANDS, ids=_told)
def test_every_command_is_run_by_a_test_or_marked(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, *words = command.words
    if program == "make":
        _is_a_target(words)
    elif program == "whimbrel" or words[:1] == ["whimbrel"]:
        _parse(words[1:] if program == "kubectl" else words, tmp_path, monkeypatch)
    elif program == "kubectl":
        kubectl(words)
    elif program == "helm":
        helm(words)
    else:
        assert command.needs or program in READERS, f"nothing runs {program}: mark the block with <!-- needs … -->"


@pytest.mark.parametrize("command", INLINE, ids=_told)
def test_every_command_within_a_sentence_is_run_by_a_test(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, *words = command.words
    if len(words) < 2 or program not in PROGRAMS:
        return
    if words[0] == "whimbrel":
        _parse(words[1:], tmp_path, monkeypatch)
    elif program == "kubectl":
        kubectl(words)
    elif "-n" in words:
        helm(words)


def _parse(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command line itself, as far as it goes without doing anything."""
    monkeypatch.chdir(folder)
    (folder / "secrets").mkdir()
    for kind in ("mysql", "dynamodb"):
        (folder / f"{kind}.json").touch()
    context = whimbrel.make_context("whimbrel", list(words))
    name, command, rest = whimbrel.resolve_command(context, [*context._protected_args, *context.args])
    assert command is not None
    if rest != ["--help"]:
        command.make_context(name, [*rest, *(["NAME"] if not rest and _needs_a_word(command) else [])])


def _needs_a_word(command: click.Command) -> bool:
    return any(isinstance(parameter, click.Argument) and parameter.required for parameter in command.params)


def _is_a_target(words: list[str]) -> None:
    """The targets exist, and so do the variables that are set."""
    targets = {word for word in words if "=" not in word}
    assert targets <= set(re.findall(r"^([a-z0-9-]+):.*## ", MAKEFILE, re.MULTILINE))
    for name in (word.split("=")[0] for word in words if "=" in word):
        assert f"$({name})" in MAKEFILE or f"$(if $({name})" in MAKEFILE, name


def test_the_lines_of_kubectl_and_helm_are_really_run() -> None:
    """By the test that goes through the same lists."""
    runner = (ROOT / "tests/chart/test_docs_on_cluster.py").read_text(encoding="utf-8")
    assert "commands()" in runner
    assert "inline()" in runner
    assert sum(command.words[0] == "kubectl" for command in COMMANDS) > 50
    assert sum(command.words[0] == "helm" for command in COMMANDS) > 10


def test_a_line_is_taken_apart_as_a_shell_does() -> None:
    assert simple("A=1 helm template x | kubectl apply -f - > out  # and so on") == [
        ("helm", "template", "x"), ("kubectl", "apply", "-f", "-"),
    ]  # fmt: skip
    assert simple("kubectl wait mig/shop && echo 'resume it; or not' &") == [
        ("kubectl", "wait", "mig/shop"), ("echo", "resume it; or not"),
    ]  # fmt: skip


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="kubectl drain is not known"):
        kubectl(["-n", "flights", "drain", "node"])
    with pytest.raises(ValueError, match="--forse"):
        helm(["upgrade", "whimbrel", "charts/whimbrel", "-n", "whimbrel-system", "--forse"])


def test_what_is_run_is_what_is_written() -> None:
    assert kubectl(["-n", "NAMESPACE", "get", "mig", "-w"]).arguments == ("-n", "flights", "get", "mig")
    assert kubectl(["delete", "mig", "NAME"]).arguments == ("delete", "mig", "flights", "--dry-run=server")
    found = helm(
        ["install", "whimbrel", "charts/whimbrel", "-n", "here", "--set", "namespaces={a,b}", "--set", "a.b=1"]
    )
    assert (found.verb, found.namespace, found.values) == ("install", "here", {"namespaces": ["a", "b"], "a": {"b": 1}})
