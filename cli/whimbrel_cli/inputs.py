"""Manifest files and Secrets on their way into the local store. What a manifest may hold stands in the api."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from whimbrel_api.base import SecretKeyRef, SecretRef
from whimbrel_api.endpoints import AuroraDSQLTarget, DynamoDBSource, DynamoDBTarget
from whimbrel_api.manifests import Manifest, load_manifests
from whimbrel_api.migration import Migration
from whimbrel_api.reverse_sync import ReverseDynamoDB, ReverseSync
from whimbrel_api.secrets import SecretManifest
from whimbrel_api.validation import Validation
from whimbrel_cli.exits import CliError, Exit
from whimbrel_operator.domain.cutover.window import faults
from whimbrel_operator.runtime.store import Key, LocalStore

Resource = Migration | Validation | ReverseSync

_AWS_KEYS: Final = ("accessKeyId", "secretAccessKey")
_AWS_ENDS: Final = (AuroraDSQLTarget, DynamoDBSource, DynamoDBTarget, ReverseDynamoDB)
_LOGIN_KEYS: Final = ("username", "password")


def read_files(paths: Sequence[str]) -> list[Manifest]:
    """The resources of all files; `-` is the standard input. Raises CliError or ManifestError."""
    named = [(path, "stdin" if path == "-" else path) for path in paths]
    found = [(origin, manifest) for path, origin in named for manifest in load_manifests(_text(path), origin)]
    if wrong := [line for origin, manifest in found for line in _faults(origin, manifest)]:
        raise CliError("\n".join(wrong), "Correct the manifest and run it again; nothing was started.", Exit.USAGE)
    return [manifest for _, manifest in found]


def _faults(origin: str, manifest: Manifest) -> Iterator[str]:
    """What no schema can tell, such as a time zone that there is not."""
    window = manifest.spec.cutover.window if isinstance(manifest, Migration) else None
    return (f"{origin}: {manifest.kind}/{manifest.metadata.name}: {fault}" for fault in faults(window))


def _text(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CliError(f"{path} is no UTF-8 text.", "A manifest is YAML in UTF-8.", Exit.USAGE) from None
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror}.", "Name a YAML file.", Exit.USAGE) from None


def read_secrets(folder: Path) -> dict[str, dict[str, bytes]]:
    """Secrets from a folder: one folder each, in it one file a key, as Kubernetes mounts them. Raises CliError."""
    try:
        return {entry.name: _keys(entry) for entry in sorted(folder.iterdir()) if entry.is_dir() and _visible(entry)}
    except OSError as error:
        where = error.filename or folder
        raise CliError(f"The Secrets in {where} cannot be read: {error.strerror}.", _LAYOUT, Exit.USAGE) from None


_LAYOUT = (
    "--secrets DIR holds one folder for each Secret and in it one file for each key, such as DIR/mysql-source/password."
)


def _keys(folder: Path) -> dict[str, bytes]:
    return {entry.name: _content(entry) for entry in sorted(folder.iterdir()) if entry.is_file() and _visible(entry)}


def _content(file: Path) -> bytes:
    """A key's bytes, without the line end that an editor puts behind the only line."""
    data = file.read_bytes()
    return data[:-1] if data.count(b"\n") == 1 and data.endswith(b"\n") else data


def _visible(path: Path) -> bool:
    return not path.name.startswith(".")


def put(store: LocalStore, manifests: Sequence[Manifest], folder: Path | None) -> list[Key]:
    """Puts Secrets and resources into the store and gives the resources' keys.

    Secrets of the folder hold in every namespace; one in a file wins. Raises CliError where a reference leads nowhere.
    """
    resources = [manifest for manifest in manifests if not isinstance(manifest, SecretManifest)]
    if not resources:
        raise CliError(
            "There is no Migration, Validation or ReverseSync in these files.", "Name a file with one.", Exit.USAGE
        )
    _refuse_jobs(resources)
    common = read_secrets(folder) if folder else {}
    secrets = {(resource.metadata.namespace, name): data for resource in resources for name, data in common.items()}
    secrets |= {
        (manifest.metadata.namespace, manifest.metadata.name): manifest.contents()
        for manifest in manifests
        if isinstance(manifest, SecretManifest)
    }
    _check_references(resources, secrets)
    for (namespace, name), data in secrets.items():
        store.put_secret(namespace, name, data)
    return [store.put(resource) for resource in resources]


def _refuse_jobs(resources: Sequence[Resource]) -> None:
    """Hooks and switches are Jobs: skipped in silence, applications would stay where they are."""
    for resource in resources:
        cutover = resource.spec.cutover if isinstance(resource, Migration) else None
        if cutover is not None and (cutover.hooks.any or cutover.switch):
            what = f"{resource.kind}/{resource.metadata.name} has hooks or switches, which are Jobs of a cluster."
            todo = "Leave spec.cutover.hooks and spec.cutover.switch out, or apply it to a cluster."
            raise CliError(what, todo, Exit.USAGE)


def _check_references(resources: Sequence[Resource], secrets: Mapping[tuple[str, str], Mapping[str, bytes]]) -> None:
    missing = [
        f"{resource.kind}/{resource.metadata.name}: {path}: {text}"
        for resource in resources
        for path, name, keys in references(resource)
        if (text := _lacking(secrets.get((resource.metadata.namespace, name)), name, keys))
    ]
    if missing:
        todo = "Give each one in a file (kind: Secret), or as a folder: " + _LAYOUT
        raise CliError("\n".join(missing), todo, Exit.USAGE)


def _lacking(secret: Mapping[str, bytes] | None, name: str, keys: Sequence[str]) -> str:
    if secret is None:
        return f"the Secret {name!r} was not given"
    lacking = [key for key in keys if key not in secret]
    return f"the Secret {name!r} has no key {' and no key '.join(lacking)}" if lacking else ""


def references(resource: Resource) -> list[tuple[str, str, Sequence[str]]]:
    """Every reference to a Secret: its path in the manifest, the Secret's name, and the keys that it must hold."""
    return list(_references(resource.spec, "spec"))


def _references(model: BaseModel, path: str) -> Iterator[tuple[str, str, Sequence[str]]]:
    for name, field in type(model).model_fields.items():
        value, inner = getattr(model, name), f"{path}.{field.alias or name}"
        if isinstance(value, SecretKeyRef):
            yield inner, value.name, (value.key,)
        elif isinstance(value, SecretRef) and name == "credentials_secret_ref":
            yield inner, value.name, _AWS_KEYS if isinstance(model, _AWS_ENDS) else _LOGIN_KEYS
        elif isinstance(value, BaseModel):
            yield from _references(value, inner)
