"""The dials that turn faults on; they strike before a call reaches the items."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

CONTROL_PATH = "/_control/"
"""Where the control answers, on the endpoint itself; it takes no signature."""


@dataclass
class Dials:
    """Faults of the stand-in, changeable while it runs; everything is off by default."""

    seed: int = 0
    """Of the generator that draws the fractions."""
    delay: float = 0.0
    """Seconds that every answer waits."""
    throttle: float = 0.0
    """1 or more: that many calls are refused (counted down); below 1: this fraction of the calls."""
    throttle_kind: str = "ProvisionedThroughputExceededException"
    """The error of a throttled call: this, ThrottlingException or RequestLimitExceeded."""
    refuse: list[str] = field(default_factory=list)
    """Operations, such as PutItem, that answer AccessDeniedException for every account."""
    down: bool = False
    """Every connection is cut without an answer; the control goes on answering."""
    pause: bool = False
    """Calls are accepted and neither carried out nor answered until this is off again."""

    def set(self, **changes: Any) -> None:
        """Turn dials; a name that is no dial, or a value of another type, raises ValueError and changes nothing."""
        known = {each.name: type(getattr(self, each.name)) for each in fields(self)}
        for name, value in changes.items():
            if name not in known:
                raise ValueError(f"unknown dial {name!r}: the dials are {', '.join(known)}")
            if not isinstance(value, (int, float) if known[name] is float else known[name]):
                raise ValueError(  # noqa: TRY004
                    f"the dial {name} takes a {known[name].__name__}, not {value!r}"
                )
        for name, value in changes.items():
            setattr(self, name, value)

    def as_json(self) -> dict[str, Any]:
        """Return all dials as plain values."""
        return asdict(self)
