"""What is asked of a cutover and of its way back, and where both stand. The Migration itself stands elsewhere."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from whimbrel_api.acknowledgements import POSITION_LENGTH
from whimbrel_api.base import (
    Duration,
    Model,
    Moment,
    Within,
)
from whimbrel_api.hooks import MOST, Hooks, HookStatus, SwitchStep


class CutoverMode(StrEnum):
    """Whether a person approves the plan."""

    MANUAL = "Manual"
    AUTOMATIC = "Automatic"


class SourceFreeze(StrEnum):
    """Who stops the writes to the source."""

    USER = "User"
    OPERATOR = "Operator"


class FreezeMethod(StrEnum):
    """How the operator stops the writes: MySQL's whole server, or the application's accounts; DynamoDB's tables.

    DenyPolicy is DynamoDB's, the others are MySQL's.
    """

    SUPER_READ_ONLY = "SuperReadOnly"
    LOCK_ACCOUNTS = "LockAccounts"
    DENY_POLICY = "DenyPolicy"


PrincipalPattern = Annotated[
    str,
    Field(
        min_length=20,
        max_length=300,
        pattern=r"^arn:aws[a-z-]*:(iam::[0-9]{12}:(root|(user|role)/.+)|sts::[0-9]{12}:federated-user/.+)$",
        description="Such as arn:aws:iam::123456789012:role/sync, as aws:PrincipalArn has it; * and ? are wildcards.",
    ),
]


class FreezePolicy(Model):
    """How the operator stops the writes to the source, where `sourceFreeze` is Operator."""

    method: FreezeMethod = FreezeMethod.SUPER_READ_ONLY
    accounts: list[Annotated[str, Field(min_length=1, max_length=300, description="Such as app@%.")]] = Field(
        default=[], max_length=20, description="The accounts to lock, such as app@%, and to unlock again."
    )
    except_principals: list[PrincipalPattern] = Field(
        default=[], max_length=10, description="DenyPolicy: who may write nevertheless, beside Whimbrel itself."
    )


class Window(Model):
    """When a cutover may begin, over and over. One that has begun is not stopped by the window's end."""

    schedule: str = Field(
        min_length=9,
        max_length=100,
        pattern=r"^\S+( +\S+){4}$",
        description="When the window opens, as cron writes it: minute hour day month weekday.",
    )
    duration: Annotated[Duration, Within("1m", "24h")] = "1h"
    time_zone: str = Field(default="UTC", min_length=1, max_length=64, description="Such as Europe/Berlin.")


class TargetExclusive(StrEnum):
    """What becomes of a cutover while others than the migration's own account may write to the target."""

    WARN = "Warn"
    REQUIRE = "Require"
    IGNORE = "Ignore"


class Cutover(Model):
    """When and how traffic may move. An approval is the hash of the plan it is given for."""

    mode: CutoverMode = CutoverMode.MANUAL
    approved_plan: str = Field(default="", max_length=128, description="The status.plan.hash that is approved.")
    not_before: Moment | None = Field(default=None, description="No cutover begins earlier.")
    window: Window | None = Field(default=None, description="No cutover begins outside of it.")
    source_freeze: SourceFreeze = SourceFreeze.USER
    freeze: FreezePolicy = FreezePolicy()
    target_exclusive: TargetExclusive = Field(
        default=TargetExclusive.WARN,
        description="Whether other accounts that may write to the target before the cutover are named, or close it.",
    )
    allowed_writers: list[
        Annotated[str, Field(min_length=1, max_length=63, description="A role's name, as pg_roles has it.")]
    ] = Field(default=[], max_length=20, description="Roles of the target that may write to it all the same.")
    hooks: Hooks = Hooks()
    switch: list[SwitchStep] = Field(
        default=[], max_length=MOST, description="How applications find the target, changed after the fence, in order."
    )
    timeout: Annotated[Duration, Within("1s", "24h")] = "10m"
    rollback: bool = Field(
        default=False,
        description="After a cutover with a way back: go back to the source. No cutover begins while it is true.",
    )


class CutoverState(StrEnum):
    """How far the traffic is."""

    NOT_READY = "NotReady"
    AWAITING_APPROVAL = "AwaitingApproval"
    FREEZING = "Freezing"
    DRAINING = "Draining"
    FINAL_CHECK = "FinalCheck"
    ARMING_REVERSE = "ArmingReverse"
    SWITCHED = "Switched"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    TIMED_OUT = "TimedOut"


class RollbackStatus(Model):
    """Where a rollback stands, or how the last one was given up."""

    started_at: Moment | None = None
    position: str = Field(
        default="", max_length=16384, description="Where the target's log came to rest, such as 0/16B3748."
    )
    last_change_time: Moment | None = Field(default=None, description="The newest change that had come back by then.")
    hold: bool = Field(default=False, description="Whether the way back shall take no more.")
    given_up: bool = Field(
        default=False, description="Whether it was given up; another one needs rollback to be false first."
    )


class CutoverStep(Model):
    """A proven step of the attempt at hand, as the target's journal has it."""

    name: str = Field(max_length=64, description="Such as Freeze, Drain, FinalCheck, Confirm, Seal, Fence.")
    position: str = Field(default="", max_length=POSITION_LENGTH, description="The position that it was proven at.")
    by: str = Field(default="", max_length=512, description="The worker that wrote it down: task, place, epoch.")
    at: Moment | None = Field(default=None, description="When, by the target's clock.")
    detail: str = Field(default="", max_length=1024, description="What was seen.")


class CutoverStatus(Model):
    """Where the cutover stands. `steps`: what is proven of the attempt at hand; hooks have their own records."""

    state: CutoverState = CutoverState.NOT_READY
    freeze_position: str = Field(default="", max_length=16384)
    source_frozen: bool = Field(
        default=False, description="Whether Whimbrel has stopped the writes to the source, or is about to."
    )
    sealed: bool = Field(
        default=False, description="Whether the target is sealed: nothing forward may be written, nor is it open yet."
    )
    started_at: Moment | None = None
    completed_at: Moment | None = None
    rolled_back_at: Moment | None = Field(
        default=None, description="The last rollback; from then on a cutover needs an approval, whatever the mode."
    )
    rollback: RollbackStatus = RollbackStatus()
    left_unread: str = Field(
        default="", max_length=4096, description="What was written to the target after a rollback had held it."
    )
    message: str = Field(default="", max_length=4096)
    hooks: list[HookStatus] = Field(default=[], max_length=50)
    steps: list[CutoverStep] = Field(default=[], max_length=20, description="The steps that the target's journal has.")


class WayBackStatus(Model):
    """What the last look at the way back found: the pre-flight of its ReverseSync."""

    checked_at: Moment | None = None
    plan: str = Field(default="", max_length=128, description="The hash of the plan that it was for.")
    problems: list[str] = Field(default=[], max_length=20)


WRITERS_NAMED: Final = 10
"""So many are named; the others are counted."""


class TargetWriters(Model):
    """Who besides the migration's own account may write to its tables on the target, by the last look.

    Names as SQL takes them. `unknown`: why it could not be told; then the rest is empty.
    """

    checked_at: Moment | None = None
    account: str = Field(default="", description="The migration's own account.")
    tables: int = Field(default=0, description="How many of the migration's tables were looked at.")
    roles: list[str] = Field(default=[], max_length=WRITERS_NAMED, description="Who may write, and by what.")
    roles_total: int = 0
    remedies: list[str] = Field(default=[], max_length=WRITERS_NAMED, description="The SQL that would end it.")
    superusers: list[str] = Field(default=[], max_length=WRITERS_NAMED, description="Who always may.")
    superusers_total: int = 0
    notes: list[str] = Field(default=[], max_length=WRITERS_NAMED)
    unknown: str = Field(default="", max_length=1024)
