"""What a switch changes of a ConfigMap, Secret or Service, and what puts it back: merge patches (RFC 7386). Pure.

What was there before is recorded in an annotation of the same object, in the same patch, so that no crash leaves one
without the other. The former value of a Secret is no annotation's business: a Secret of its own keeps it, owned by the
Migration, and the annotation names that one. A record of the same owner stays as it is, so that a switch done twice
does not take the new value for the former one.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from whimbrel_api.base import GROUP
from whimbrel_api.hooks import ConfigMapSwitch, SecretSwitch, ServiceSwitch, SwitchOrder
from whimbrel_worker.errors import ConfigurationError

JSON = dict[str, Any]
KEPT_KEY: Final = "value"
_EXTERNAL: Final = "ExternalName"
_LONGEST_NAME: Final = 253


@dataclass(frozen=True)
class Record:
    """What the annotation holds. `before`: the part of the object as it was; for a Secret `kept_in` instead."""

    owner: str
    before: Any = None
    kept_in: str = ""

    def text(self) -> str:
        """As it stands in the annotation."""
        told = {"owner": self.owner, "before": self.before, "keptIn": self.kept_in}
        return json.dumps({name: value for name, value in told.items() if value not in (None, "")}, sort_keys=True)


def mark(order: SwitchOrder) -> str:
    """The annotation that records this switch."""
    return f"{GROUP}/switch-{order.switch.name}"


def recorded(order: SwitchOrder, body: Mapping[str, Any]) -> Record | None:
    """The record at an object. Raises ConfigurationError where it cannot be read."""
    text = (body["metadata"].get("annotations") or {}).get(mark(order))
    if text is None:
        return None
    try:
        told = json.loads(text)
        return Record(str(told["owner"]), told.get("before"), str(told.get("keptIn", "")))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ConfigurationError(
            "the record of what was there before cannot be read",
            where=f"annotation {mark(order)} of {order.switch.place}",
            todo=f"see to the value by hand, then: kubectl -n {order.namespace} annotate {order.switch.place} "
            f"{mark(order)}-",
        ) from None


def own_record(order: SwitchOrder, body: Mapping[str, Any]) -> Record | None:
    """The record at an object, if this very Migration made it; one of a former Migration is of no use any more."""
    found = recorded(order, body)
    return found if found is not None and found.owner == order.owner_uid else None


def kept_name(order: SwitchOrder) -> str:
    """The Secret that keeps a Secret's former value: `whimbrel-before-<Migration>.<switch>`, or a hash where that is
    too long. Known beforehand, so that a Role can name it; a switch's name holds no dot, so no two are alike."""
    name = f"whimbrel-before-{order.owner_name}.{order.switch.name}"
    return name if len(name) <= _LONGEST_NAME else f"whimbrel-before-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def kept_secret(order: SwitchOrder, switch: SecretSwitch, body: Mapping[str, Any]) -> JSON:
    """The Secret that keeps the former value, to be applied. It goes with the Migration."""
    value = (body.get("data") or {}).get(switch.key)
    owner = {"apiVersion": f"{GROUP}/v1alpha1", "kind": order.owner_kind, "name": order.owner_name}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": kept_name(order),
            "namespace": order.namespace,
            "ownerReferences": [{**owner, "uid": order.owner_uid}],
        },
        "data": {} if value is None else {KEPT_KEY: value},
    }


def config_map_patch(order: SwitchOrder, switch: ConfigMapSwitch, body: Mapping[str, Any]) -> JSON | None:
    """The patch that sets the key; None where nothing is to be done."""
    data = body.get("data") or {}
    if switch.key in (body.get("binaryData") or {}):
        raise ConfigurationError(
            f"key {switch.key} holds binary data", where=order.switch.place, todo="name a key of text"
        )
    before = {"value": data.get(switch.key)}
    return _patch(order, body, {"data": {switch.key: switch.value}}, before, same=data.get(switch.key) == switch.value)


def service_patch(order: SwitchOrder, switch: ServiceSwitch, body: Mapping[str, Any]) -> JSON | None:
    """The patch that leads the Service elsewhere; None where nothing is to be done."""
    spec = body.get("spec") or {}
    external = spec.get("type") == _EXTERNAL
    if external != (switch.external_name is not None):
        raise ConfigurationError(
            f"the Service is {'' if external else 'not '}of type {_EXTERNAL}",
            where=order.switch.place,
            todo=f"name {'externalName' if external else 'selector'}, or another Service",
        )
    if switch.external_name is not None:
        before = {"externalName": spec.get("externalName", "")}
        same = before["externalName"] == switch.external_name
        return _patch(order, body, {"spec": {"externalName": switch.external_name}}, before, same=same)
    old = spec.get("selector") or {}
    change = {"spec": {"selector": _replaced(old, switch.selector)}}
    return _patch(order, body, change, {"selector": old}, same=old == switch.selector)


def secret_patch(order: SwitchOrder, switch: SecretSwitch, body: Mapping[str, Any], value: str) -> JSON | None:
    """The patch that sets the key to `value`, which is in Base64; None where nothing is to be done."""
    same = (body.get("data") or {}).get(switch.key) == value
    return _patch(order, body, {"data": {switch.key: value}}, None, same=same, kept_in=kept_name(order))


def _patch(
    order: SwitchOrder, body: Mapping[str, Any], change: JSON, before: Any, *, same: bool, kept_in: str = ""
) -> JSON | None:
    known = own_record(order, body) is not None
    if known and same:
        return None
    annotated = {} if known else {mark(order): Record(order.owner_uid, before, kept_in).text()}
    return _at_version(body, {**change, "metadata": {"annotations": annotated} if annotated else {}})


def back_patch(order: SwitchOrder, body: Mapping[str, Any], kept: Mapping[str, Any] | None) -> JSON | None:
    """The patch that puts back what was there before; None where nothing is recorded, so nothing was switched.

    `kept` is the Secret that keeps the former value of a Secret. Raises ConfigurationError where what is recorded is
    another's, or is gone.
    """
    found = recorded(order, body)
    if found is None:
        return None
    if found.owner != order.owner_uid:
        raise _foreign(order)
    change = _former(order, body, found, kept)
    return _at_version(body, {**change, "metadata": {"annotations": {mark(order): None}}})


def _former(order: SwitchOrder, body: Mapping[str, Any], found: Record, kept: Mapping[str, Any] | None) -> JSON:
    switch = order.switch
    if switch.secret is not None:
        if kept is None:
            raise _kept_is_gone(order, found.kept_in)
        return {"data": {switch.secret.key: (kept.get("data") or {}).get(KEPT_KEY)}}
    before = found.before if isinstance(found.before, dict) else {}
    if switch.config_map is not None:
        return {"data": {switch.config_map.key: before.get("value")}}
    if "externalName" in before:
        return {"spec": {"externalName": before["externalName"]}}
    now = (body.get("spec") or {}).get("selector") or {}
    return {"spec": {"selector": _replaced(now, before.get("selector") or {})}}


def _replaced(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str | None]:
    """A merge patch adds to a map; what shall go has to be named."""
    return {**{key: None for key in old if key not in new}, **new}


def _at_version(body: Mapping[str, Any], patch: JSON) -> JSON:
    """Refused by the API server where the object was written since it was read."""
    version = {"resourceVersion": body["metadata"]["resourceVersion"]}
    return {**patch, "metadata": {**patch["metadata"], **version}}


def _foreign(order: SwitchOrder) -> ConfigurationError:
    return ConfigurationError(
        "what is recorded as the former value is of another Migration, or of a former one of this name",
        where=f"annotation {mark(order)} of {order.switch.place}",
        todo=f"put the value back by hand: kubectl -n {order.namespace} edit {order.switch.place}",
    )


def _kept_is_gone(order: SwitchOrder, name: str) -> ConfigurationError:
    return ConfigurationError(
        "the Secret that kept the former value is gone",
        where=f"secret {order.namespace}/{name}",
        todo=f"put the value back by hand: kubectl -n {order.namespace} edit {order.switch.place}",
    )
