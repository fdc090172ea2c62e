"""Malformed manifests and the messages that people read."""
# ruff: noqa: E501 - a row of the table stands on one line

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel_api.errors import ManifestError
from whimbrel_api.manifests import load_manifests
from whimbrel_api.migration import Migration, Mode
from whimbrel_api.secrets import SecretManifest
from whimbrel_api.validation import Validation

GOOD = """\
apiVersion: whimbrel.dev/v1alpha1
kind: Migration
metadata: {name: shop, labels: {team: a}}
spec:
  source:
    mysql: {host: db, port: 3307, credentialsSecretRef: {name: source}}
  target:
    auroraDSQL: {endpoint: abc.dsql.us-east-1.on.aws, region: us-east-1}
"""
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: source}\n"


def refused(text: str) -> str:
    with pytest.raises(ManifestError) as caught:
        load_manifests(text, "shop.yaml")
    return str(caught.value)


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_good_manifest_is_read() -> None:
    (migration,) = load_manifests(GOOD, "shop.yaml")
    assert isinstance(migration, Migration)
    assert migration.spec.source.mysql is not None
    assert (migration.metadata.name, migration.spec.source.mysql.port) == ("shop", 3307)
    assert migration.spec.mode is Mode.SNAPSHOT_AND_STREAM


def test_documents_keep_their_order_and_empty_ones_are_left_out() -> None:
    validation = (
        "kind: Validation\napiVersion: whimbrel.dev/v1alpha1\nmetadata: {name: a}\nspec: {migrationRef: {name: shop}}\n"
    )
    read = load_manifests(f"---\n# nothing\n---\n{validation}---\n{GOOD}---\n{SECRET}", "all.yaml")
    assert [type(manifest) for manifest in read] == [Validation, Migration, SecretManifest]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed("port: 3307", "port: 70000"), "shop.yaml:6 (document 1): Migration/shop: spec.source.mysql.port: given 70000; allowed: a whole number from 1 to 65535: the server's port"),
        (changed("port: 3307", 'port: "3307"'), "spec.source.mysql.port: given '3307'; allowed: a whole number"),
        (changed("port: 3307", "prot: 3307"), "spec.source.mysql.prot: unknown field, did you mean port?; allowed here: host, port, credentialsSecretRef, tls"),
        (changed("port: 3307", "password: hunter2"), "spec.source.mysql.password: unknown field; credentials stand in a Secret"),
        (changed("credentialsSecretRef", "credentials_secret_ref"), "did you mean credentialsSecretRef?"),
        (changed(", credentialsSecretRef: {name: source}", ""), "spec.source.mysql.credentialsSecretRef: missing; allowed: a mapping with name"),
        (changed("host: db", "host: http://db/x"), "spec.source.mysql.host: given 'http://db/x'; allowed: a text of 1 to 253 characters: a host name or address, without scheme, user or path"),
        (changed("    auroraDSQL: {endpoint: abc.dsql.us-east-1.on.aws, region: us-east-1}", "    {}"), "spec.target: name exactly one target: auroraDSQL, postgresql or dynamodb"),
        (changed("host: db", "host: http://me:hunter2@db"), "spec.source.mysql.host: given 'http://…@db'; allowed: a text"),
        (GOOD + "  stream: {flushInterval: 5 s}\n", "spec.stream.flushInterval: given '5 s'; allowed: a text of at most 32 characters: a duration such as 200ms"),
        (GOOD + "  stream: {retentionGuard: 0}\n", "spec.stream.retentionGuard: given 0; allowed: a number above 0 and up to 1"),
        (GOOD + "  cutover: {mode: Manul}\n", "spec.cutover.mode: given 'Manul'; allowed: Manual, Automatic"),
        (GOOD + "  paused: yes please\n", "spec.paused: given 'yes please'; allowed: true or false"),
        (GOOD + "  tables: {include: shop.*}\n", "spec.tables.include: given 'shop.*'; allowed: a list of at most 1000 items"),
        (GOOD + "  tables: {include: [a, 1]}\n", "spec.tables.include[1]: given 1; allowed: a text"),
        (GOOD + "  mode: null\n", "spec.mode: given nothing; allowed: SnapshotAndStream, SnapshotOnly"),
        (changed("{name: shop, ", "{name: Shop!, "), "metadata.name: given 'Shop!'; allowed: a text of 1 to 253 characters: a Kubernetes name"),
        (changed("labels:", "lables:"), "metadata.lables: unknown field, did you mean labels?"),
        (changed("kind: Migration", "kind: Migrations"), "kind: unknown kind 'Migrations', did you mean Migration?; known are Migration (whimbrel.dev/v1alpha1)"),
        (changed("kind: Migration\n", ""), "kind: missing; known are"),
        (changed("v1alpha1", "v1"), "apiVersion: given 'whimbrel.dev/v1'; allowed for Migration: whimbrel.dev/v1alpha1"),
        (changed("apiVersion: whimbrel.dev/v1alpha1\n", ""), "apiVersion: missing; write whimbrel.dev/v1alpha1"),
        (GOOD + "kind: Migration\n", "shop.yaml:9 (document 1): the key 'kind' stands twice in one mapping, first on line 2"),
        (changed("host: db,", "host: db, host: da,"), "the key 'host' stands twice in one mapping"),
        (GOOD + "---\n" + GOOD, "shop.yaml:12 (document 2): Migration/shop: metadata.name: the file holds this resource twice"),
        ("- a\n", "a resource is a mapping with apiVersion, kind, metadata and spec, not a list"),
        ("", "no resource stands in it"),
        ("a: [", "shop.yaml:1 (document 1): no valid YAML: "),
        ("on: 1\n", "the key True is no text; quote it"),
        ("a: &x [*x]\n", "nested more than 64 deep"),
        ("a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
         "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n", "more than 100,000 values"),
        ("kind: 2026-01-01\n", "kind: unknown kind '2026-01-01'"),
        ("a: !!timestamp 2026-01-01\n", "a value of the YAML type date has no place in a manifest"),
        ("a: .inf\n", "infinity and not-a-number"),
        ('kind: "\\ud800"\n', "kind: unknown kind"),
        (SECRET + "data: {a: '!'}\n", "shop.yaml:4 (document 1): Secret/source: data.a: data holds base64; write plain text under stringData"),
        (SECRET + "stringData: {a b: x}\n", "stringData['a b']: this key is not taken"),
        (SECRET + "stringDta: {a: x}\n", "stringDta: unknown field, did you mean stringData?"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_refused_with_a_message(text: str, message: str) -> None:
    assert message in refused(text)


def test_all_problems_of_all_documents_come_at_once_in_the_order_of_the_file() -> None:
    text = changed("port: 3307", "port: 0") + "  mode: Fast\n---\n" + SECRET + "typo: 1\n"
    lines = refused(text).splitlines()
    assert [line.split(":")[1].split(" ")[0] for line in lines] == ["6", "9", "14"]


@pytest.mark.parametrize(
    "text",
    [
        SECRET + "stringData: {password: hunter2}\ntypo: hunter2\n",
        SECRET + "stringData: {password: [hunter2]}\n",
        SECRET + "data: {password: hunter2!}\n",
        SECRET + "stringData: {password: *hunter2}\n",
        SECRET + "stringData: {password: !hunter2 x}\n",
        SECRET + "stringData: hunter2\n",
        changed("port: 3307", "password: hunter2"),
    ],
)
def test_a_message_never_holds_a_secret(text: str) -> None:
    assert "hunter2" not in refused(text)


def test_a_secret_shows_its_values_nowhere_but_in_contents() -> None:
    encoded = base64.b64encode(b"\x00hunter2").decode()
    (secret,) = load_manifests(
        f"{SECRET}stringData: {{password: hunter2}}\ndata: {{k: {encoded}, password: eA==}}\n", "s.yaml"
    )
    assert isinstance(secret, SecretManifest)
    assert secret.contents() == {"password": b"hunter2", "k": b"\x00hunter2"}
    for shown in (repr(secret), str(secret), secret.model_dump_json(), repr(secret.model_dump())):
        assert "hunter2" not in shown
        assert encoded not in shown


WORDS = st.sampled_from(
    ["kind", "apiVersion", "Migration", "Secret", "Validation", "whimbrel.dev/v1alpha1", "v1", "metadata", "name", "spec", "source",
     "mysql", "target", "tables", "include", "stringData", "data", ": ", "\n", "\n  ", "- ", "{", "}", "[", "]", ",", "&a ", "*a", "!!int ",
     "!!binary ", "!!set ", "<<", "'", '"', "|", ">", "---\n", "#", "0x", "0b_", "1:2:3", "1e400", ".nan", "~", "\t", "\x00", "\ud800", "?"]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(), st.lists(WORDS, max_size=40).map("".join)))
def test_hostile_text_raises_nothing_but_a_manifest_error(text: str) -> None:
    try:
        load_manifests(text, "hostile.yaml")
    except ManifestError as error:
        str(error).encode("utf-8")


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.text(max_size=5), WORDS), inner, max_size=4)),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["Migration", "Validation", "Secret"]), JSON, JSON, JSON)
def test_hostile_values_raise_nothing_but_a_manifest_error(
    kind: str, metadata: object, spec: object, data: object
) -> None:
    import yaml

    version = "v1" if kind == "Secret" else "whimbrel.dev/v1alpha1"
    text = yaml.safe_dump({"kind": kind, "apiVersion": version, "metadata": metadata, "spec": spec, "data": data})
    with pytest.raises(ManifestError):
        load_manifests(text, "hostile.yaml")
