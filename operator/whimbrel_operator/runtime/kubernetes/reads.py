"""All that belongs to a resource, read live from the cluster in few requests. What it means is told in observe."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from whimbrel_api.base import API_VERSION
from whimbrel_api.migration import Migration
from whimbrel_api.repeats import Repeats
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_api.validation import Validation
from whimbrel_operator.domain.hook_jobs import HookJob
from whimbrel_operator.errors import ResourceUnreadable
from whimbrel_operator.runtime.kubernetes import kinds
from whimbrel_operator.runtime.kubernetes.api import JSON, Api
from whimbrel_operator.runtime.kubernetes.observe.hooks import hook_job_of, is_hook
from whimbrel_operator.runtime.kubernetes.observe.look import TaskObjects, by_task
from whimbrel_operator.runtime.kubernetes.observe.objects import job_of, pod_of, report_of
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.specs import names
from whimbrel_operator.specs.names import Owner

Resource = Migration | Validation | ReverseSync
_R = TypeVar("_R", Migration, Validation, ReverseSync)
LOG: Final = logging.getLogger("whimbrel.runtime")
_REPEATS: Final = Repeats()


async def resource(api: Api, key: Key) -> tuple[Resource, str] | None:
    """The resource and its resourceVersion; None where it is gone. Raises ResourceUnreadable."""
    body = await api.get(kinds.RESOURCES[key.kind], key.namespace, key.name)
    if body is None:
        return None
    version = body["metadata"]["resourceVersion"]
    match key.kind:
        case "Migration":
            return parsed(Migration, body), version
        case "Validation":
            return parsed(Validation, body), version
        case _:
            return parsed(ReverseSync, body), version


@dataclass(frozen=True)
class Children:
    """What belongs to a resource: the objects of its tasks, by task, and the Jobs of its hooks as JSON.

    Whoever takes all of it away needs no more of a hook's Job than its name, also where its annotations are damaged.
    """

    tasks: dict[str, TaskObjects]
    hook_bodies: tuple[JSON, ...]

    @property
    def hooks(self) -> tuple[HookJob, ...]:
        """The Jobs of its hooks. Raises StateUnreadable where one is damaged."""
        return tuple(map(hook_job_of, self.hook_bodies))

    @property
    def hook_jobs(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(str(each["metadata"]["name"]) for each in self.hook_bodies)


async def children(api: Api, owner: Owner) -> Children:
    """Jobs, pods and WorkerReports of a resource. Pods of hooks are left to their Jobs.

    Jobs are read first: whatever a Job says of an end, the report of that end was written before, so it is read after.
    """
    selector = names.children_of(owner)
    jobs = await api.list(kinds.JOBS, owner.namespace, selector)
    pods, reports = await asyncio.gather(
        api.list(kinds.PODS, owner.namespace, selector), api.list(kinds.WORKER_REPORTS, owner.namespace, selector)
    )
    own = [each for each in jobs if not is_hook(each)]
    tasks = by_task(owner.namespace, map(job_of, own), map(pod_of, pods), map(report_of, reports))
    return Children(tasks, tuple(each for each in jobs if is_hook(each)))


async def validations_of(api: Api, migration: Migration) -> tuple[Validation, ...]:
    """The Validations that name a Migration."""
    meta = migration.metadata
    bodies = await api.list(kinds.VALIDATIONS, meta.namespace)
    naming = [each for each in bodies if _named(each) == meta.name]
    return tuple(each for each in map(_validation, naming) if each is not None)


async def ways_back_of(api: Api, migration: Migration) -> tuple[tuple[ReverseSync, str], ...]:
    """The ReverseSyncs that name a Migration or bear its name, each with its resourceVersion.

    None is asked for where no way back can lead.

    Raises ResourceUnreadable: one that cannot be read may be at work.
    """
    if migration.spec.source.dynamodb is None:
        return ()
    meta = migration.metadata
    bodies = await api.list(kinds.REVERSE_SYNCS, meta.namespace)
    return tuple(
        (parsed(ReverseSync, _whole(each)), str(each["metadata"]["resourceVersion"]))
        for each in bodies
        if meta.name in (_named(each), each["metadata"]["name"])
    )


def _whole(body: JSON) -> JSON:
    """An item of a list does not say what it is."""
    return {"apiVersion": API_VERSION, "kind": "ReverseSync", **body}


async def migration_of(api: Api, resource: Validation | ReverseSync) -> Migration | None:
    """The Migration that a resource names; None where none is named or there. Raises ResourceUnreadable."""
    ref = resource.spec.migration_ref
    if ref is None:
        return None
    body = await api.get(kinds.MIGRATIONS, resource.metadata.namespace, ref.name)
    return parsed(Migration, body) if body is not None else None


def parsed(kind: type[_R], body: JSON) -> _R:
    """A resource from the API server's JSON. A status of another version is left out, as the target knows it all.

    Raises ResourceUnreadable.
    """
    told = {each: body[each] for each in ("apiVersion", "kind", "metadata", "spec") if each in body}
    try:
        return kind.model_validate(told | {"status": body.get("status") or {}})
    except ValidationError as error:
        if all(each["loc"][:1] == ("status",) for each in error.errors()):
            line = "%s has a status that cannot be read; it is made anew"
            _REPEATS.log(LOG, logging.WARNING, body["metadata"]["uid"], line, _place(body))
            return kind.model_validate(told)
        raise _unreadable(body, error) from None


def _validation(body: JSON) -> Validation | None:
    """A Validation of a Migration. One that cannot be read is told of by its own reconciling."""
    try:
        return parsed(Validation, body)
    except ResourceUnreadable as error:
        LOG.debug("left out: %s", error)
        return None


def _named(body: JSON) -> Any:
    return (body.get("spec", {}).get("migrationRef") or {}).get("name")


def _place(body: JSON) -> str:
    meta = body["metadata"]
    return f"{body['kind']} {meta['namespace']}/{meta['name']}"


def _unreadable(body: JSON, error: ValidationError) -> ResourceUnreadable:
    meta = body["metadata"]
    told = ResourceUnreadable(
        f"{body['kind']} {meta['name']} does not fit this version of Whimbrel",
        where=f"namespace {meta['namespace']}",
        why=_faults(error.errors(include_url=False, include_input=False)),
        todo="correct it, or bring the operator and its CRDs to the same version: kubectl apply --server-side -f crds/",
    )
    told.generation, told.resource_version = int(meta.get("generation", 0)), meta.get("resourceVersion", "")
    return told


def _faults(errors: Sequence[Any]) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in errors)
