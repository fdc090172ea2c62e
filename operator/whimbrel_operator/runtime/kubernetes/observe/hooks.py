"""The Jobs of hooks and switches, as the runtime reads them. What their end leads to is told in domain.hooks."""

from collections.abc import Mapping
from typing import Any, Final

from whimbrel_api.hooks import HookPoint, HookState
from whimbrel_operator.domain.hook_jobs import HookJob
from whimbrel_operator.errors import StateUnreadable
from whimbrel_operator.runtime.kubernetes.observe.objects import moment
from whimbrel_operator.specs import names

JSON = Mapping[str, Any]
_WORDS: Final = {
    "DeadlineExceeded": "it took longer than its timeout and was ended",
    "BackoffLimitExceeded": "its pod failed as often as it may",
    "PodFailurePolicy": "its pod failed in a way that trying again does not help",
}


def is_hook(body: JSON) -> bool:
    """Whether a Job of Whimbrel's is one of a hook or switch."""
    return names.HOOK in (body["metadata"].get("labels") or {})


def hook_job_of(body: JSON) -> HookJob:
    """The Job of a hook. Nothing of its pods' logs is read: what they print is the user's, and may be secret.

    Raises StateUnreadable where its annotations are damaged.
    """
    meta, status = body["metadata"], body.get("status") or {}
    annotated = meta.get("annotations") or {}
    true = {each["type"]: each for each in status.get("conditions") or [] if each["status"] == "True"}
    failed, complete = true.get("Failed"), true.get("Complete")
    ended = failed or complete
    return HookJob(
        run_id=str(meta["labels"][names.HOOK]),
        point=_point(body, str(annotated.get(names.HOOK_POINT, ""))),
        name=str(annotated.get(names.HOOK_NAME, "")),
        job=meta["name"],
        state=_state(failed, complete),
        started_at=moment(status.get("startTime") or meta["creationTimestamp"]),
        finished_at=moment(ended.get("lastTransitionTime") or meta["creationTimestamp"]) if ended else None,
        message=_why(failed) if failed else "",
        deleting="deletionTimestamp" in meta,
    )


def _state(failed: JSON | None, complete: JSON | None) -> HookState:
    if failed is not None:
        return HookState.FAILED
    return HookState.SUCCEEDED if complete is not None else HookState.RUNNING


def _why(failed: JSON) -> str:
    reason, message = str(failed.get("reason", "")), str(failed.get("message", ""))
    return f"{_WORDS.get(reason, 'its Job failed')} ({reason}: {message})"


def _point(body: JSON, told: str) -> HookPoint:
    try:
        return HookPoint(told)
    except ValueError:
        meta = body["metadata"]
        raise StateUnreadable(
            "the Job of a hook does not say at which point of the cutover it runs",
            where=f"{meta['namespace']}/{meta['name']}",
            why=f"its annotation {names.HOOK_POINT} is {told!r}",
            todo=f"delete it: kubectl -n {meta['namespace']} delete job {meta['name']}",
        ) from None
