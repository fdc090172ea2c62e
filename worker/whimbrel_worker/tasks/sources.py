"""Puts a source together from a task file. Targets are put together in targets."""

from whimbrel_api.tasks import TaskFile
from whimbrel_worker.endpoints.mysql.source import MySQLSource
from whimbrel_worker.engine.ports import Profile, Source
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.secrets import Secrets


def build_source(file: TaskFile, profile: Profile) -> Source:
    """The task's source; the target's profile says what its tables may look like."""
    if file.source.mysql is None:
        raise ConfigurationError("the task names no source that this version knows", where=file.migration)
    return MySQLSource(file.source.mysql, Secrets(file.secrets), file.tables, profile)
