"""What the target's journal keeps of a cutover's steps, and how a task is told what to write. Not how it is written."""

from typing import Final

from pydantic import Field

from whimbrel_api.base import Model, Moment

POSITION_LENGTH: Final = 1024
"""A position is kept to that length: enough to tell it from any other, whatever a source writes."""
KEPT: Final = 32
"""How many of the newest a record carries; a cutover and its rollback have half of that."""


class Proof(Model):
    """What a task writes into the target's journal once its step is proven; `step` empty: nothing.

    `plan` and `attempt`: the hash that was approved, and the plan's attempt. `before`: steps that were proven without a
    task that reaches the journal, by what was observed, before this one was ordered; they are written with it.
    `position` is theirs. `differences`: in how many rows source and target may differ for a comparison to prove a step.
    """

    step: str = Field(default="", max_length=64, description="The step's name; empty: nothing is written.")
    plan: str = Field(default="", max_length=128, description="The hash of the plan that was approved.")
    attempt: int = Field(default=0, description="The plan's attempt.")
    position: str = Field(default="", max_length=POSITION_LENGTH, description="The position that it is proven at.")
    before: list[str] = Field(
        default=[],
        max_length=8,
        description="Steps that were proven before it, without a task that reaches the journal.",
    )
    differences: int = Field(
        default=0, description="In how many rows source and target may differ for a comparison to prove it."
    )


class Acknowledgement(Model):
    """A step that was proven: by whom, for which attempt of which plan, at which position, and what was seen.

    `at`: when it was journalled, by the target's clock; None as long as it is not. The journal holds one for each step,
    attempt and position, the first.
    """

    step: str = Field(max_length=64, description="The step's name.")
    plan: str = Field(default="", max_length=128, description="The hash of the plan that was approved.")
    attempt: int = Field(default=0, description="The plan's attempt.")
    position: str = Field(default="", max_length=POSITION_LENGTH, description="The position that it was proven at.")
    by: str = Field(default="", max_length=512, description="The worker that wrote it down.")
    detail: str = Field(default="", max_length=1024, description="What was seen.")
    at: Moment | None = Field(default=None, description="When it was written down, by the target's clock.")

    def same_as(self, other: "Acknowledgement") -> bool:
        """Whether both say the same of the same attempt, whoever said it when."""
        return (self.step, self.attempt, self.position) == (other.step, other.attempt, other.position)
