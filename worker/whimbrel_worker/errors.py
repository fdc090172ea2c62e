"""The worker's tree of errors. Each says what happened, where, why, and what to do.

WorkerError
├── ConfigurationError   a person must act                          exit 2
├── SourceLogLost        the change log is gone before it was read  exit 3
├── FencedOut            a successor holds the control row          exit 4
├── Incompatible         a type or statement that cannot be carried: stops its table
└── Transient            worth another try, with backoff and jitter
    └── Conflict         the target refused a transaction for a concurrent one
"""

from typing import ClassVar

from whimbrel_api.reports import ErrorCategory, ReportedError
from whimbrel_api.tasks import ExitCode


class WorkerError(Exception):
    """Something went wrong that a person can be told about."""

    category: ClassVar[ErrorCategory] = ErrorCategory.UNEXPECTED
    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(self, what: str, *, where: str = "", why: str = "", todo: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.why, self.todo = what, where, why, todo

    def report(self) -> ReportedError:
        """The same as a report's field, cut to its bounds."""
        return ReportedError(
            category=self.category,
            what=self.what[:4096],
            where=self.where[:1024],
            why=self.why[:4096],
            todo=self.todo[:4096],
        )

    def __str__(self) -> str:
        return self.report().sentence()


class ConfigurationError(WorkerError):
    """A person must act before this can work."""

    category = ErrorCategory.CONFIGURATION
    exit_code = ExitCode.CONFIGURATION


class SourceLogLost(WorkerError):
    """The source no longer has the changes after the checkpoint."""

    category = ErrorCategory.SOURCE_LOG_LOST
    exit_code = ExitCode.SOURCE_LOG_LOST


class FencedOut(WorkerError):
    """Another worker holds this one's control row now; nothing more may be written."""

    category = ErrorCategory.FENCED_OUT
    exit_code = ExitCode.FENCED_OUT


class Incompatible(WorkerError):
    """A type, value or statement that cannot be carried; it stops its table."""

    category = ErrorCategory.INCOMPATIBLE
    exit_code = ExitCode.CONFIGURATION


class Transient(WorkerError):
    """Worth another try, with backoff and jitter."""

    category = ErrorCategory.TRANSIENT


class Conflict(Transient):
    """The target refused the transaction because of a concurrent one."""
