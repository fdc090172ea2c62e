"""A resource with everything that belongs to it or speaks of it, gathered from a place. How it looks stands in tree."""

from collections.abc import Sequence

from whimbrel_api.migration import Migration
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_api.validation import Validation
from whimbrel_cli.guidance import Resource
from whimbrel_cli.pieces import Piece, of_resource
from whimbrel_cli.places import Place
from whimbrel_operator.errors import Forbidden
from whimbrel_operator.runtime.port import Key


def key_of(resource: Resource) -> Key:
    """Where a resource is found again."""
    return Key(resource.metadata.namespace, resource.kind, resource.metadata.name)


def family(place: Place, key: Key) -> tuple[Piece, Sequence[str]]:
    """The tree of a resource, and what of it may not be read. Raises OperatorError where the resource is gone."""
    resource = place.store.get(key)
    others, hidden = relatives(place, resource)
    branches = [of_resource(each, place.pieces(key_of(each))) for each in others]
    return of_resource(resource, [*place.pieces(key), *branches]), [*hidden, *place.hidden()]


def relatives(place: Place, resource: Resource) -> tuple[list[Resource], list[str]]:
    """The ReverseSyncs and Validations of a Migration, and which of both may not be read; none for another kind."""
    if not isinstance(resource, Migration):
        return [], []
    found: list[Resource] = []
    hidden: list[str] = []
    for kind, plural in (("ReverseSync", "reverse syncs"), ("Validation", "validations")):
        try:
            there = place.all(resource.metadata.namespace, everywhere=False, kind=kind)
        except Forbidden:
            hidden.append(plural)
            continue
        found += [each for each in there if _of(each, resource)]
    return found, hidden


def _of(other: Resource, migration: Migration) -> bool:
    if not isinstance(other, ReverseSync | Validation):
        return False
    named = other.spec.migration_ref is not None and other.spec.migration_ref.name == migration.metadata.name
    return named or other.metadata.belongs_to(migration.metadata.uid)
