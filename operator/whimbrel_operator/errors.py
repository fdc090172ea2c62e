"""The operator's errors, one small tree. Each says what happened, where, why and what to do next.

OperatorError
├── NotFound          no such resource in the state directory
├── NotAllowed        a change that the work already begun forbids
├── AlreadyRunning    another process reconciles the resource
├── StatusConflict    somebody else wrote the status since it was read
├── TaskTooLarge      what a task must be told does not fit into a ConfigMap
├── StateUnreadable   a file of the state directory, or an object made for a resource, is damaged
├── NoCluster         there is no kubeconfig, or no such context in it
├── Transient         the cluster cannot do it now and may do it later
│   ├── ClusterAway       the API server does not answer
│   ├── Outdated          an object was changed or made since it was read
│   └── NamespaceEnding   the namespace is being deleted and takes nothing new
├── ResourceUnreadable   a resource of the cluster does not fit the types
├── NotInstalled      the cluster does not know Whimbrel's resources
├── SettingsError     the process was started with settings that cannot be
├── LeaseLost         another process may lead from now on
├── OperatorDefect    an error that nobody foresaw, again and again
└── Refused           the API server answered, and refused: a right, the schema, a conflict
    └── Forbidden     a right is missing
"""


class OperatorError(Exception):
    """What the operator raises on purpose; str() is one sentence for a person. `told`: an Event says so already."""

    told = False

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


class TaskTooLarge(OperatorError):
    """What a task must be told does not fit into a ConfigMap."""


class StateUnreadable(OperatorError):
    """A file of the state directory is damaged, or what somebody wrote into an object that was made for a resource."""


class NoCluster(OperatorError):
    """There is no kubeconfig, or no such context in it."""


class Transient(OperatorError):
    """The cluster cannot do it now and may do it later. `retry_after`: seconds that it asked to be left alone, or 0."""

    retry_after: float = 0.0


class ClusterAway(Transient):
    """The API server does not answer; it may do so later."""


class Outdated(Transient):
    """An object was changed or made since it was read; observe again."""


class NamespaceEnding(Transient):
    """The namespace is being deleted and takes nothing new; deletions still work."""


class ResourceUnreadable(OperatorError):
    """A resource of the cluster does not fit the types, though its schema let it pass.

    `generation` and `resource_version` are those of the resource, for a condition in its status.
    """

    generation: int = 0
    resource_version: str = ""


class NotInstalled(OperatorError):
    """The cluster does not know Whimbrel's resources."""


class Refused(OperatorError):
    """The API server answered, and refused: `what` holds its own words."""


class Forbidden(Refused):
    """The API server refused because a right is missing; `what` names it."""


class SettingsError(OperatorError):
    """The process was started with settings that cannot be."""


class OperatorDefect(OperatorError):
    """An error that nobody foresaw, again and again. Only its type is told: its text may quote anything."""

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"the operator fails at this resource with {kind}",
            why="this is a defect, or an answer of the cluster that it does not know",
            todo="running workers go on; the operator's log says where it fails: please report that",
        )


class LeaseLost(OperatorError):
    """Another process may lead from now on; this one must stop at once."""
