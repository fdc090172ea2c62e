"""Pure: which files a pod's volumes hold. Writing them stands in files.py, fetching what they hold in sources.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from whimbrel_testbed.kubernetes.agent import environment
from whimbrel_testbed.kubernetes.agent.fields import field_of_source
from whimbrel_testbed.kubernetes.agent.shapes import Json, Lookup, NotYet, Reference, Unsupported, data_of

DEFAULT_MODE = 0o644
_TOKEN_MODE = 0o600
_DEFAULT_TOKEN_SECONDS = 3600


@dataclass(frozen=True)
class File:
    """One file of a volume: content and permission bits."""

    content: bytes
    mode: int = DEFAULT_MODE


@dataclass(frozen=True)
class TokenWish:
    """A token of the pod's service account that a projected volume asks for; an empty audience is the API server."""

    audience: str
    seconds: int


Tokens = Mapping[TokenWish, str]


@dataclass(frozen=True)
class View:
    """All that volume contents are made of."""

    pod: Json
    pod_ip: str
    lookup: Lookup
    tokens: Tokens


def is_scratch(volume: Json) -> bool:
    """Whether the volume is an emptyDir, whose files are the container's own."""
    return "emptyDir" in volume


def files(volume: Json, view: View) -> dict[str, File]:
    """Return a volume's files by relative path; NotYet where something not optional is missing."""
    if "projected" in volume:
        projected = volume["projected"]
        mode = projected.get("defaultMode", DEFAULT_MODE)
        parts = [_source(source, mode, view) for source in projected.get("sources") or []]
        return {path: file for part in parts for path, file in part.items()}
    if "secret" in volume:
        source = {**volume["secret"], "name": volume["secret"]["secretName"]}
        return _object("secrets", source, source.get("defaultMode", DEFAULT_MODE), view)
    if "configMap" in volume:
        return _object("configmaps", volume["configMap"], volume["configMap"].get("defaultMode", DEFAULT_MODE), view)
    if "downwardAPI" in volume:
        return _downward(volume["downwardAPI"], volume["downwardAPI"].get("defaultMode", DEFAULT_MODE), view)
    kinds = ", ".join(sorted(set(volume) - {"name"}))
    raise Unsupported(f'volume "{volume["name"]}": this node agent has no volumes of the kind {kinds}')


def references(pod: Json) -> set[Reference]:
    """Name each Secret and ConfigMap that the pod uses, by volumes and by environment."""
    spec = pod["spec"]
    found = {reference for volume in spec.get("volumes") or [] for reference in _of_volume(volume)}
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        found.update(environment.references(container))
    return found


def token_wishes(pod: Json) -> set[TokenWish]:
    """Name each token that the pod's projected volumes ask for."""
    return {
        _wish(source["serviceAccountToken"])
        for volume in pod["spec"].get("volumes") or []
        for source in (volume.get("projected") or {}).get("sources") or []
        if "serviceAccountToken" in source
    }


def _of_volume(volume: Json) -> Iterator[Reference]:
    if "secret" in volume:
        yield Reference("secrets", volume["secret"]["secretName"])
    if "configMap" in volume:
        yield Reference("configmaps", volume["configMap"]["name"])
    for source in (volume.get("projected") or {}).get("sources") or []:
        if "secret" in source:
            yield Reference("secrets", source["secret"]["name"])
        if "configMap" in source:
            yield Reference("configmaps", source["configMap"]["name"])


def _source(source: Json, mode: int, view: View) -> dict[str, File]:
    if "secret" in source:
        return _object("secrets", source["secret"], mode, view)
    if "configMap" in source:
        return _object("configmaps", source["configMap"], mode, view)
    if "downwardAPI" in source:
        return _downward(source["downwardAPI"], mode, view)
    if "serviceAccountToken" in source:
        token = source["serviceAccountToken"]
        return {token["path"]: File(view.tokens[_wish(token)].encode(), _TOKEN_MODE)}
    raise Unsupported(f"this node agent has no projected source of the kind {', '.join(sorted(source))}")


def _object(resource: str, source: Json, mode: int, view: View) -> dict[str, File]:
    reference, optional = Reference(resource, source["name"]), bool(source.get("optional"))
    found = view.lookup(reference)
    if found is None:
        if optional:
            return {}
        raise NotYet(f"{reference} not found")
    data = data_of(found)
    if source.get("items") is None:
        return {key: File(content, mode) for key, content in data.items()}
    return _items(reference, source["items"], data, mode, optional)


def _items(
    reference: Reference, items: list[Json], data: Mapping[str, bytes], mode: int, optional: bool
) -> dict[str, File]:
    missing = [item["key"] for item in items if item["key"] not in data]
    if missing and not optional:
        raise NotYet(f"{reference} has no key {', '.join(missing)}")
    return {
        item["path"]: File(data[item["key"]], item.get("mode", mode)) for item in items if item["key"] not in missing
    }


def _downward(source: Json, mode: int, view: View) -> dict[str, File]:
    return {
        item["path"]: File(field_of_source(item, view.pod, view.pod_ip).encode(), item.get("mode", mode))
        for item in source.get("items") or []
    }


def _wish(source: Json) -> TokenWish:
    return TokenWish(source.get("audience") or "", int(source.get("expirationSeconds") or _DEFAULT_TOKEN_SECONDS))
