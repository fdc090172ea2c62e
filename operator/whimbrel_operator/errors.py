"""The operator's errors, one small tree. Each says what happened, where, why and what to do next.

OperatorError
├── NotFound          no such resource in the state directory
├── NotAllowed        a change that the work already begun forbids
├── AlreadyRunning    another process reconciles the resource
├── StatusConflict    somebody else wrote the status since it was read
└── StateUnreadable   a file of the state directory is damaged
"""


class OperatorError(Exception):
    """What the operator raises on purpose; str() is one sentence for a person."""

    def __init__(self, what: str, *, where: str = "", why: str = "", todo: str = "") -> None:
        self.what, self.where, self.why, self.todo = what, where, why, todo
        parts = (what, where and f"in {where}", why, todo)
        super().__init__("; ".join(part for part in parts if part))


class NotFound(OperatorError):
    """No such resource in the state directory."""


class NotAllowed(OperatorError):
    """A change that the work already begun forbids."""


class AlreadyRunning(OperatorError):
    """Another process reconciles the resource."""


class StatusConflict(OperatorError):
    """Somebody else wrote the status since it was read; observe again."""


class StateUnreadable(OperatorError):
    """A file of the state directory is damaged."""
