"""One switch, done or put back: read, record, patch; again where somebody else wrote meanwhile. May be repeated."""

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from whimbrel_api.hooks import SecretSwitch, SwitchOrder
from whimbrel_worker.errors import ConfigurationError, Transient
from whimbrel_worker.switching import patches
from whimbrel_worker.switching.objects import Objects

_log = logging.getLogger(__name__)
_WAITS: Final = (0.2, 0.5, 1.0, 2.0, 4.0)


def carry_out(order: SwitchOrder, objects: Objects, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Do the switch, or put it back. Whether something was changed. Raises WorkerError."""
    for wait in (*_WAITS, None):
        try:
            return _once(order, objects)
        except Transient as error:
            if wait is None:
                raise
            _log.warning("%s; tried again in %g s", error, wait)
            sleep(wait)
    raise AssertionError("the last try returns or raises")


def _once(order: SwitchOrder, objects: Objects) -> bool:
    kind, _, name = order.switch.place.partition("/")
    plural = f"{kind}s"
    body = _there(objects, order, plural, name)
    patch = _back(order, objects, body) if order.back else _forth(order, objects, body)
    if patch is None:
        _log.info("%s: nothing is to be done", order.switch.place)
        return False
    objects.merge(plural, name, patch)
    _log.info("%s: %s", order.switch.place, "put back" if order.back else "switched; what was there is recorded")
    return True


def _forth(order: SwitchOrder, objects: Objects, body: dict[str, Any]) -> dict[str, Any] | None:
    switch = order.switch
    if switch.config_map is not None:
        return patches.config_map_patch(order, switch.config_map, body)
    if switch.service is not None:
        return patches.service_patch(order, switch.service, body)
    if switch.secret is not None:
        return _secret(order, switch.secret, objects, body)
    raise ConfigurationError("the switch names nothing to change", where=f"switch {switch.name}")


def _secret(order: SwitchOrder, switch: SecretSwitch, objects: Objects, body: dict[str, Any]) -> dict[str, Any] | None:
    """The former value is kept before the new one is written; without a record the old one still stands there."""
    source = _there(objects, order, "secrets", switch.from_.name)
    value = (source.get("data") or {}).get(switch.from_.key)
    if value is None:
        raise ConfigurationError(
            f"Secret {switch.from_.name} has no key {switch.from_.key}",
            where=f"namespace {order.namespace}",
            todo="put the value there that the application shall use from now on",
        )
    if patches.own_record(order, body) is None:
        objects.apply("secrets", patches.kept_secret(order, switch, body))
    return patches.secret_patch(order, switch, body, value)


def _back(order: SwitchOrder, objects: Objects, body: dict[str, Any]) -> dict[str, Any] | None:
    found = patches.recorded(order, body)
    kept = objects.get("secrets", found.kept_in) if found is not None and found.kept_in else None
    return patches.back_patch(order, body, kept)


def _there(objects: Objects, order: SwitchOrder, plural: str, name: str) -> dict[str, Any]:
    found = objects.get(plural, name)
    if found is None:
        raise ConfigurationError(
            f"there is no {plural}/{name}",
            where=f"namespace {order.namespace}",
            todo=f"make it, or correct spec.cutover.switch ({order.switch.name})",
        )
    return found
