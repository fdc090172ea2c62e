"""What a switch changes and records, what puts it back, and what is refused: patches applied to objects as JSON."""

import base64
import json
from typing import Any

import pytest

from whimbrel_api.hooks import SwitchOrder
from whimbrel_operator.runtime.patches import merge_patch
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.switching import __main__ as program
from whimbrel_worker.switching import patches

CONFIG = {"configMap": {"name": "app", "key": "host", "value": "new"}}
SECRET = {"secret": {"name": "app", "key": "password", "from": {"name": "next", "key": "password"}}}
SERVICE = {"service": {"name": "db", "selector": {"db": "target", "tier": "1"}}}
EXTERNAL = {"service": {"name": "db", "externalName": "target.example"}}


def order(what: dict[str, Any], *, uid: str = "u1", back: bool = False) -> SwitchOrder:
    switch = {"name": "db", "serviceAccountName": "mover", **what}
    told = {"namespace": "shop", "ownerKind": "Migration", "ownerName": "shop", "ownerUid": uid, "access": "/a"}
    return SwitchOrder.model_validate({**told, "switch": switch, "back": back})


def thing(**fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": "x", "resourceVersion": "7"}, **fields}


def config(what: dict[str, Any], body: dict[str, Any], **more: Any) -> dict[str, Any] | None:
    told = order(what, **more)
    assert told.switch.config_map is not None
    return patches.config_map_patch(told, told.switch.config_map, body)


def service(what: dict[str, Any], body: dict[str, Any]) -> dict[str, Any] | None:
    told = order(what)
    assert told.switch.service is not None
    return patches.service_patch(told, told.switch.service, body)


def after(body: dict[str, Any], patch: dict[str, Any] | None) -> dict[str, Any]:
    assert patch is not None
    assert patch["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]
    return merge_patch(body, patch)


@pytest.mark.parametrize("data", [{"host": "old", "port": "1"}, {"port": "1"}, {}])
def test_a_config_map_is_switched_once_and_put_back_whole(data: dict[str, str]) -> None:
    before = thing(data=data)
    switched = after(before, config(CONFIG, before))
    assert switched["data"] == {**data, "host": "new"}
    assert config(CONFIG, switched) is None
    back = after(switched, patches.back_patch(order(CONFIG, back=True), switched, None))
    assert back["data"] == data
    assert patches.back_patch(order(CONFIG, back=True), back, None) is None


def test_done_again_with_another_value_it_still_remembers_the_first() -> None:
    before = thing(data={"host": "old"})
    switched = after(before, config(CONFIG, before))
    corrected = {"configMap": {**CONFIG["configMap"], "value": "newer"}}
    again = after(switched, config(corrected, switched))
    assert again["data"]["host"] == "newer"
    assert after(again, patches.back_patch(order(corrected), again, None))["data"]["host"] == "old"


def test_the_value_that_is_there_already_is_recorded_all_the_same() -> None:
    before = thing(data={"host": "new"})
    switched = after(before, config(CONFIG, before))
    assert patches.own_record(order(CONFIG), switched) is not None


def test_a_services_selector_is_replaced_not_added_to() -> None:
    before = thing(spec={"type": "ClusterIP", "selector": {"app": "source", "tier": "1"}})
    switched = after(before, service(SERVICE, before))
    assert switched["spec"]["selector"] == {"db": "target", "tier": "1"}
    assert service(SERVICE, switched) is None
    back = after(switched, patches.back_patch(order(SERVICE), switched, None))
    assert back["spec"]["selector"] == {"app": "source", "tier": "1"}


def test_an_external_name_is_switched_and_put_back() -> None:
    before = thing(spec={"type": "ExternalName", "externalName": "source.example"})
    switched = after(before, service(EXTERNAL, before))
    assert switched["spec"]["externalName"] == "target.example"
    assert after(switched, patches.back_patch(order(EXTERNAL), switched, None))["spec"] == before["spec"]


@pytest.mark.parametrize(("what", "kind"), [(SERVICE, "ExternalName"), (EXTERNAL, "ClusterIP")])
def test_a_service_of_the_other_type_is_refused(what: dict[str, Any], kind: str) -> None:
    with pytest.raises(ConfigurationError, match="of type ExternalName"):
        service(what, thing(spec={"type": kind}))


@pytest.mark.parametrize("data", [{"password": "b2xk", "user": "YQ=="}, {"user": "YQ=="}])
def test_a_secrets_former_value_stands_in_a_secret_and_nowhere_else(data: dict[str, str]) -> None:
    told, before = order(SECRET), thing(data=data)
    switch = told.switch.secret
    assert switch is not None
    kept = patches.kept_secret(told, switch, before)
    assert kept["metadata"]["ownerReferences"][0]["uid"] == "u1"
    switched = after(before, patches.secret_patch(told, switch, before, "bmV3"))
    assert switched["data"] == {**data, "password": "bmV3"}
    assert json.loads(switched["metadata"]["annotations"][patches.mark(told)]) == {
        "owner": "u1", "keptIn": kept["metadata"]["name"],
    }  # fmt: skip
    assert patches.secret_patch(told, switch, switched, "bmV3") is None
    assert after(switched, patches.back_patch(told, switched, kept))["data"] == data
    with pytest.raises(ConfigurationError, match="by hand"):
        patches.back_patch(told, switched, None)


def test_what_keeps_a_secret_has_a_name_that_a_role_can_give_and_that_is_its_own() -> None:
    told = order(SECRET)
    assert patches.kept_name(told) == "whimbrel-before-shop.db"
    long = told.model_copy(update={"owner_name": "m" * 253})
    assert len(patches.kept_name(long)) <= 253
    assert patches.kept_name(long) != patches.kept_name(long.model_copy(update={"owner_name": "m" * 252}))


def test_the_record_of_another_migration_is_replaced_by_a_switch_and_never_put_back() -> None:
    before = thing(data={"host": "old"})
    switched = after(before, config(CONFIG, before, uid="former"))
    with pytest.raises(ConfigurationError, match="of another Migration"):
        patches.back_patch(order(CONFIG), switched, None)
    mine = after(switched, config(CONFIG, switched))
    assert after(mine, patches.back_patch(order(CONFIG), mine, None))["data"]["host"] == "new"


def test_a_record_that_cannot_be_read_and_binary_data_are_refused() -> None:
    damaged = thing(data={"host": "old"})
    damaged["metadata"]["annotations"] = {patches.mark(order(CONFIG)): "{"}
    with pytest.raises(ConfigurationError, match="cannot be read"):
        config(CONFIG, damaged)
    with pytest.raises(ConfigurationError, match="binary"):
        config(CONFIG, thing(binaryData={"host": base64.b64encode(b"x").decode()}))


@pytest.mark.parametrize("environment", [{}, {"WHIMBREL_SWITCH": '{"switch": {"name": "geheim"}}'}])
def test_an_order_that_cannot_be_read_ends_it_with_2(
    environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert program.main(environment) == 2
    assert "WHIMBREL_SWITCH" in caplog.text
    assert "geheim" not in caplog.text
