"""The plan that an approval is given for, and what may not change once the work has begun. No gate stands here."""

import hashlib
import json
from typing import Any

from whimbrel_api.cutover import TargetExclusive
from whimbrel_api.migration import MigrationSpec
from whimbrel_api.rules import CHANGEABLE, FROZEN

_PLANNED = {"mode", "source", "target", "tables", "thresholds"}
_POLICY = {"mode", "source_freeze", "freeze", "timeout", "hooks", "switch"}
_EXCLUSIVE = {"target_exclusive", "allowed_writers"}
_WAY_BACK = {"enabled", "polardb", "layout", "on_truncate", "fenced_writes"}


def plan_hash(spec: MigrationSpec, attempt: int) -> str:
    """`sha256:` over canonical JSON of what an approval covers.

    That is source, target, tables, mode, thresholds, who freezes and how, the way back, who else may write to the
    target where that closes the cutover, and the attempt: what is done.

    Not over when it is done (notBefore, window), nor over paused, workers, rate limits, the slot's guard and approvals,
    so that these may change under an approval; nor over defaults, so that a field that a later version adds withdraws
    none.
    """
    plan = spec.model_dump(mode="json", by_alias=True, include=_PLANNED, exclude_defaults=True)
    plan["cutover"] = spec.cutover.model_dump(mode="json", by_alias=True, include=_POLICY, exclude_defaults=True)
    back = spec.reverse_sync.model_dump(mode="json", by_alias=True, include=_WAY_BACK, exclude_defaults=True)
    plan |= {"reverseSync": back} if back else {}
    if spec.cutover.target_exclusive is TargetExclusive.REQUIRE:
        required = spec.cutover.model_dump(mode="json", by_alias=True, include=_EXCLUSIVE, exclude_defaults=True)
        plan["cutover"] |= required
    plan["attempt"] = attempt
    text = json.dumps(plan, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def frozen_changes(old: MigrationSpec, new: MigrationSpec) -> tuple[str, ...]:
    """The fields that differ and may not once the work has begun. Credentials and TLS references may."""
    before, after = _frozen(old), _frozen(new)
    return tuple(f"spec.{name}" for name in before if before[name] != after[name])


def _frozen(spec: MigrationSpec) -> dict[str, Any]:
    whole = spec.model_dump(mode="json", by_alias=True)
    fields = {name: whole[name] for name in FROZEN}
    for end in (*fields["source"].values(), *fields["target"].values()):
        for reference in CHANGEABLE:
            if end is not None:
                end.pop(reference, None)
    return fields
