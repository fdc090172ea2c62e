"""What a pod is given: environment, rewritten paths, addresses and the files of volumes."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from whimbrel_testbed.kubernetes.agent.environment import command_line, expand, given_by_file, resolve
from whimbrel_testbed.kubernetes.agent.fields import field_value
from whimbrel_testbed.kubernetes.agent.files import write_atomically
from whimbrel_testbed.kubernetes.agent.paths import pod_address, rewriter
from whimbrel_testbed.kubernetes.agent.shapes import NotYet, Reference, Unsupported
from whimbrel_testbed.kubernetes.agent.volumes import File, TokenWish, View, files, references, token_wishes

POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"b": 'say "x"', "a": "1"}},
    "spec": {"nodeName": "n", "serviceAccountName": "sa", "containers": []},
}
OBJECTS: dict[Reference, dict[str, Any]] = {
    Reference("secrets", "s"): {"kind": "Secret", "data": {"k": base64.b64encode(b"v").decode(), "e": ""}},
    Reference("configmaps", "c"): {"kind": "ConfigMap", "data": {"x": "1"}, "binaryData": {"b": "AAE="}},
}
IP = "127.1.2.3"
VIEW = View(POD, IP, OBJECTS.get, {TokenWish("", 3600): "t0", TokenWish("a", 600): "t1"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$(NO)", "$(NO)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A ${A} $", "$A ${A} $"),
    ],
)
def test_variables_are_put_in(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


def test_the_environment_is_built_in_order() -> None:
    container = {
        "envFrom": [{"prefix": "C_", "configMapRef": {"name": "c"}}, {"secretRef": {"name": "s"}}],
        "env": [
            {"name": "k", "value": "own"},
            {"name": "two", "value": "$(k) $(C_x) $(later)"},
            {"name": "later"},
            {"name": "raw", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ],
    }
    found = resolve(container, POD, IP, {"GIVEN": "g"}, OBJECTS.get)
    assert found["two"] == "own 1 $(later)"
    assert (found["raw"], found["e"], found["later"], found["GIVEN"]) == ("v", "", "", "g")
    assert command_line({"command": ["a", "$(k)"], "args": ["$(raw)"]}, found) == ["a", "own", "v"]


def test_what_is_missing_is_named_and_no_value_is() -> None:
    def of(source: dict[str, Any]) -> dict[str, str]:
        return resolve({"env": [{"name": "V", "valueFrom": source}]}, POD, IP, {}, OBJECTS.get)

    with pytest.raises(NotYet, match=r'Secret "s" has no key "z" \(environment variable V\)'):
        of({"secretKeyRef": {"name": "s", "key": "z"}})
    with pytest.raises(NotYet, match='ConfigMap "z" not found'):
        of({"configMapKeyRef": {"name": "z", "key": "z"}})
    assert of({"configMapKeyRef": {"name": "z", "key": "z", "optional": True}}) == {}
    with pytest.raises(Unsupported, match="resource"):
        of({"resourceFieldRef": {"resource": "limits.cpu"}})
    with pytest.raises(Unsupported, match="no images"):
        command_line({"args": ["x"]}, {})


def test_fields() -> None:
    assert field_value(POD, IP, "metadata.labels['a']") == "1"
    assert field_value(POD, IP, "metadata.annotations['a']") == ""
    assert field_value(POD, IP, "metadata.labels") == 'a="1"\nb="say \\"x\\""'
    assert field_value(POD, IP, "status.podIP") == IP
    with pytest.raises(Unsupported):
        field_value(POD, IP, "spec.priority")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/tmp", "/pods/tmp/v"),
        ("--to=/tmp/x", "--to=/pods/tmp/v/x"),
        ("a:/tmp:b", "a:/pods/tmp/v:b"),
        ("/var/tmp/x", "/var/tmp/x"),
        ("/tmpfs /tmp-x /tmp.d", "/tmpfs /tmp-x /tmp.d"),
        ("in /tmp.", "in /pods/tmp/v."),
        ("/etc/a/b/c /etc/a/c", "/B/c /A/c"),
        ("file:///tmp/x", "file:///pods/tmp/v/x"),
        ("http://host/tmp/x", "http://host/tmp/x"),
        ("0.0.0.0:80 10.0.0.0 0.0.0.0.1", "127.1.2.3:80 10.0.0.0 0.0.0.0.1"),
    ],
)
def test_paths_are_rewritten(text: str, expected: str) -> None:
    folders = {"/tmp": "/pods/tmp/v", "/etc/a/": "/A", "/etc/a/b": "/B"}
    assert rewriter(folders, IP)(text) == expected


@given(st.text())
def test_without_mounts_a_text_without_addresses_stays(text: str) -> None:
    assume("0.0.0.0" not in text)
    assert rewriter({}, IP)(text) == text


def test_addresses_are_loopback_steady_and_never_shared() -> None:
    taken = set[str]()
    for number in range(200):
        taken.add(pod_address(str(number), taken))
    assert len(taken) == 200
    assert all(address.startswith("127.") and address != "127.0.0.1" for address in taken)
    assert pod_address("7", set()) == pod_address("7", set())


def test_the_files_of_each_kind_of_volume() -> None:
    secret = {"name": "v", "secret": {"secretName": "s", "defaultMode": 0o400, "items": [{"key": "k", "path": "d/k"}]}}
    assert files(secret, VIEW) == {"d/k": File(b"v", 0o400)}
    assert files({"name": "v", "configMap": {"name": "c"}}, VIEW) == {"x": File(b"1"), "b": File(b"\0\1")}
    sources = [
        {"serviceAccountToken": {"path": "token"}},
        {"serviceAccountToken": {"path": "other", "audience": "a", "expirationSeconds": 600}},
        {"configMap": {"name": "c", "items": [{"key": "x", "path": "x", "mode": 0o440}]}},
        {"secret": {"name": "none", "optional": True}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]
    projected = {"name": "v", "projected": {"sources": sources}}
    assert files(projected, VIEW) == {
        "token": File(b"t0", 0o600), "other": File(b"t1", 0o600), "x": File(b"1", 0o440), "name": File(b"p"),
    }  # fmt: skip
    pod = {**POD, "spec": {"volumes": [secret, projected], "containers": []}}
    assert references(pod) == {Reference("secrets", "s"), Reference("secrets", "none"), Reference("configmaps", "c")}
    assert token_wishes(pod) == set(VIEW.tokens)


def test_missing_objects_and_keys_make_a_volume_wait() -> None:
    with pytest.raises(NotYet, match='Secret "none" not found'):
        files({"name": "v", "secret": {"secretName": "none"}}, VIEW)
    items = [{"key": "k", "path": "k"}, {"key": "z", "path": "z"}]
    with pytest.raises(NotYet, match='Secret "s" has no key z'):
        files({"name": "v", "secret": {"secretName": "s", "items": items}}, VIEW)
    optional = {"name": "v", "secret": {"secretName": "s", "items": items, "optional": True}}
    assert files(optional, VIEW) == {"k": File(b"v")}
    with pytest.raises(Unsupported, match="persistentVolumeClaim"):
        files({"name": "v", "persistentVolumeClaim": {"claimName": "c"}}, VIEW)


def test_files_are_swapped_all_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    write_atomically(folder, {"a": File(b"1"), "d/b": File(b"2", 0o400)})
    held = (folder / "..data").resolve()
    assert (folder / "a").read_text() == "1"
    assert (folder / "d/b").stat().st_mode & 0o777 == 0o400
    write_atomically(folder, {"a": File(b"3"), "c": File(b"4")})
    assert {path.name: path.read_text() for path in folder.iterdir() if not path.name.startswith("..")} == {
        "a": "3", "c": "4",
    }  # fmt: skip
    assert not held.exists()
    assert len([path for path in folder.iterdir() if path.name.startswith("..")]) == 2
    for bad in ("../x", "/x"):
        with pytest.raises(ValueError, match="inside"):
            write_atomically(folder, {bad: File(b"")})


def test_the_environment_file_of_a_node() -> None:
    assert given_by_file("# why\nA=1\n\nB=x=y \n") == {"A": "1", "B": "x=y "}
    for line in ("A", "1A=b", "A B=c"):
        with pytest.raises(Unsupported, match="environment file"):
            given_by_file(line)
