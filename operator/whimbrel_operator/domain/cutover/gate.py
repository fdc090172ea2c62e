"""What a gate before a cutover is: one condition with its figures. Which gates there are stands in gates."""

from dataclasses import dataclass
from datetime import datetime

from whimbrel_api.base import ConditionStatus


@dataclass(frozen=True)
class Gate:
    """One condition of a cutover. Only status True is open."""

    type: str
    status: ConditionStatus
    reason: str
    message: str

    @property
    def open(self) -> bool:
        """Whether it lets the cutover pass."""
        return self.status == "True"


def clock(moment: datetime) -> str:
    """A moment as gates name it, to the second."""
    return moment.isoformat(timespec="seconds")
