"""Switches against a real API server under an account of the user's: rights that are missing, writers beside them."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.stage import Cluster, Rights, prepared
from whimbrel_api.hooks import SwitchOrder
from whimbrel_operator.specs.names import Owner
from whimbrel_worker.errors import ConfigurationError, Transient
from whimbrel_worker.switching import patches
from whimbrel_worker.switching.objects import JSON, Objects
from whimbrel_worker.switching.switcher import carry_out

HOST = {"configMap": {"name": "app", "key": "host", "value": "new"}}
PASSWORD = {"secret": {"name": "app", "key": "password", "from": {"name": "next", "key": "password"}}}


@dataclass
class Place:
    """A namespace with a ConfigMap and two Secrets, and the way in as the account `mover`."""

    cluster: Cluster
    namespace: str
    address: str
    access: Path
    owner: Owner

    def kubectl(self, *arguments: str) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments)

    def allow(self, verbs: str, resources: str) -> None:
        self.kubectl("create", "role", "mover", f"--verb={verbs}", f"--resource={resources}")
        self.kubectl("create", "rolebinding", "mover", "--role=mover", f"--serviceaccount={self.namespace}:mover")

    def order(self, what: dict[str, Any], *, back: bool = False) -> SwitchOrder:
        switch = {"name": "db", "serviceAccountName": "mover", **what}
        owner = {"ownerKind": "Migration", "ownerName": self.owner.name, "ownerUid": self.owner.uid}
        told = {"namespace": self.namespace, **owner, "access": str(self.access), "switch": switch, "back": back}
        return SwitchOrder.model_validate(told)

    def objects(self, kind: type[Objects] = Objects) -> Objects:
        return kind(self.address, self.access, self.namespace)

    def value(self, kind: str, key: str) -> str:
        found = str(json.loads(self.kubectl("get", kind, "app", "-o", "json"))["data"][key])
        return base64.b64decode(found).decode() if kind == "secret" else found


@pytest.fixture
def place(cluster: Cluster, rights: Rights, namespace: str, tmp_path: Path) -> Place:
    host, port = (rights.where[f"KUBERNETES_SERVICE_{part}"] for part in ("HOST", "PORT"))
    made = Place(cluster, namespace, f"https://{host}:{port}", tmp_path, prepared(cluster, namespace))
    made.kubectl("create", "serviceaccount", "mover")
    made.kubectl("create", "configmap", "app", "--from-literal=host=old")
    made.kubectl("create", "secret", "generic", "app", "--from-literal=password=one")
    made.kubectl("create", "secret", "generic", "next", "--from-literal=password=two")
    (tmp_path / "token").write_text(made.kubectl("create", "token", "mover").strip())
    (tmp_path / "ca.crt").write_bytes(rights.authority)
    return made


def test_a_missing_right_is_named_with_what_to_do(place: Place) -> None:
    with pytest.raises(ConfigurationError) as refused:
        carry_out(place.order(HOST), place.objects())
    assert "refused to get configmaps/app" in str(refused.value)
    assert "serviceAccountName that right: docs/hooks.md" in str(refused.value)
    assert (place.access / "token").read_text() not in str(refused.value)


def test_a_secret_is_switched_and_put_back_and_its_value_never_shown(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.allow("get,patch,create", "secrets")
    assert carry_out(place.order(PASSWORD), place.objects())
    assert place.value("secret", "password") == "two"
    place.kubectl("patch", "secret", "next", "-p", '{"stringData": {"password": "three"}}')
    assert carry_out(place.order(PASSWORD), place.objects())
    assert not carry_out(place.order(PASSWORD), place.objects())
    assert place.value("secret", "password") == "three"
    assert carry_out(place.order(PASSWORD, back=True), place.objects())
    assert place.value("secret", "password") == "one"
    assert not carry_out(place.order(PASSWORD, back=True), place.objects())
    shown = caplog.text + place.kubectl("describe", "secrets") + place.kubectl("get", "events")
    values = [base64.b64encode(each.encode()).decode() for each in ("one", "two", "three")]
    assert not [value for value in values if value in shown]


def test_what_is_not_there_is_named(place: Place) -> None:
    place.allow("get,patch,create", "secrets,configmaps")
    for what, named in (
        ({"configMap": {"name": "none", "key": "a", "value": "b"}}, "there is no configmaps/none"),
        (
            {"secret": {"name": "app", "key": "a", "from": {"name": "next", "key": "none"}}},
            "Secret next has no key none",
        ),
    ):
        with pytest.raises(ConfigurationError, match=named):
            carry_out(place.order(what), place.objects())


def test_somebody_who_writes_meanwhile_loses_nothing(place: Place) -> None:
    place.allow("get,patch", "configmaps")
    left = [1]

    class Disturbed(Objects):
        def get(self, plural: str, name: str) -> JSON | None:
            found = super().get(plural, name)
            if left and left.pop():
                place.kubectl("patch", "configmap", "app", "-p", '{"data": {"host": "meanwhile", "port": "1"}}')
            return found

    waited: list[float] = []
    assert carry_out(place.order(HOST), place.objects(Disturbed), waited.append)
    assert len(waited) == 1
    assert (place.value("configmap", "host"), place.value("configmap", "port")) == ("new", "1")
    assert carry_out(place.order(HOST, back=True), place.objects())
    assert place.value("configmap", "host") == "meanwhile"
    assert patches.mark(place.order(HOST)) not in place.kubectl("get", "configmap", "app", "-o", "json")


def test_an_api_server_that_is_away_is_asked_again_and_then_told(place: Place) -> None:
    waited: list[float] = []
    away = Objects("https://127.0.0.1:1", place.access, place.namespace)
    with pytest.raises(Transient, match="cannot be reached"):
        carry_out(place.order(HOST), away, waited.append)
    assert len(waited) == 5
