"""Reads a task file, where it lies and with what the environment adds. What it means stands in the tasks."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from whimbrel_api.tasks import ReportResource, TaskFile, TaskKind
from whimbrel_worker.errors import ConfigurationError

_INDEX = "JOB_COMPLETION_INDEX"


class Unreadable(ConfigurationError):
    """The task file cannot be read. `partly` holds what of it is needed to say so, where that much could be read."""

    partly: TaskFile | None = None


def read(path: Path, environment: Mapping[str, str]) -> TaskFile:
    """The task file with absolute paths and the index that counts here. Raises Unreadable."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error.strerror or type(error).__name__) from None
    try:
        return located(TaskFile.model_validate_json(content), path.absolute().parent, environment)
    except ValidationError as error:
        trouble = _unreadable(path, _listed(error))
    except ConfigurationError as error:
        trouble = _unreadable(path, error.what)
    trouble.partly = _partly(content, path.absolute().parent, environment)
    raise trouble


def located(file: TaskFile, folder: Path, environment: Mapping[str, str]) -> TaskFile:
    """The same with paths relative to `folder` made absolute and the index of the pod, where it has one."""
    resource = file.report_resource
    changes: dict[str, Any] = {
        "index": _index(file.index, environment),
        "secrets": {name: _absolute(folder, each) for name, each in file.secrets.items()},
        "report_file": _absolute(folder, file.report_file),
        "orders_file": _absolute(folder, file.orders_file),
        "spool": _absolute(folder, file.spool),
        "check": file.check.model_copy(update={"report_file": _absolute(folder, file.check.report_file)}),
    }
    if resource is not None:
        changes["report_resource"] = resource.model_copy(update={"access": _absolute(folder, resource.access)})
    return file.model_copy(update=changes)


def _absolute(folder: Path, path: str) -> str:
    # Without following links: Kubernetes mounts a ConfigMap's files as links into a folder that changes.
    return os.path.normpath(folder / path) if path else ""


def _index(index: int, environment: Mapping[str, str]) -> int:
    told = environment.get(_INDEX, "")
    if not told:
        return index
    if not (told.isascii() and told.isdigit()):
        raise ConfigurationError(f"the environment's {_INDEX} is no number", where="environment")
    return int(told)


def _partly(content: bytes, folder: Path, environment: Mapping[str, str]) -> TaskFile | None:
    """Enough to report with, or None: a file of another version may still say where its report belongs."""
    try:
        file = _bare(json.loads(content))
        return located(file, folder, environment) if file.report_resource or file.report_file else None
    except (ValueError, TypeError, LookupError, AttributeError, ConfigurationError):
        return None


def _bare(told: Mapping[str, Any]) -> TaskFile:
    """A task file that holds only what reports and logs need: it has no source and no target."""
    resource = told.get("reportResource")
    return TaskFile.model_construct(
        task=TaskKind(told["task"]),
        task_id=str(told["taskId"]),
        migration=str(told.get("migration", "")),
        index=int(told.get("index", 0)),
        report_resource=None if resource is None else ReportResource.model_validate(resource),
        report_file=str(told.get("reportFile", "")),
        orders_file=str(told.get("ordersFile", "")),
    )


def _listed(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg']}" for each in error.errors()[:20])


def _unreadable(path: Path, why: str) -> Unreadable:
    return Unreadable(
        "the task file cannot be read",
        where=str(path),
        why=why,
        todo="the operator writes it: see that operator and worker are of one version",
    )
