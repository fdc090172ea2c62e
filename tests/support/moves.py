"""Whole snapshots for tests: task files over the testbed's servers, run in this process or as workers of their own."""

import json
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from whimbrel_api.reports import WorkerReport
from whimbrel_api.tasks import TaskFile
from whimbrel_testbed.compare import independent_compare
from whimbrel_testbed.mysql import MySQLAccess
from whimbrel_worker.runner import run_task

ROOT = Path(__file__).parents[2]


@dataclass
class Tasks(ABC):
    """The tasks of one migration, with a directory of its own for secrets, files and reports."""

    directory: Path
    target: dict[str, Any]
    """`spec.target` with Secret names of `secrets`."""
    secrets: dict[str, str]
    tables: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    """Further fields of the task file."""
    migration: str = "default/move"

    @abstractmethod
    def source(self) -> dict[str, Any]:
        """`spec.source`; its Secret is made."""

    def secret(self, name: str, **keys: str) -> None:
        """Make a Secret, or write it anew."""
        folder = self.directory / name
        folder.mkdir(exist_ok=True)
        for key, value in keys.items():
            fresh = folder / f".{key}"
            fresh.write_text(value)
            fresh.replace(folder / key)  # whoever reads it meanwhile sees the old or the new
        self.secrets[name] = str(folder)

    def task(self, kind: str, index: int = 0, workers: int = 1, **fields: Any) -> TaskFile:
        document = {
            "task": kind,
            "taskId": kind,
            "migration": self.migration,
            "index": index,
            "workers": workers,
            "epoch": 0 if kind in ("preflight", "schema") else 1,
            "source": self.source(),
            "target": self.target,
            "tables": self.tables,
            "secrets": self.secrets,
            "reportFile": str(self.directory / f"{kind}-{index}.report"),
            "ordersFile": str(self.directory / f"{kind}-{index}.orders"),
            **self.options,
            **fields,
        }
        return TaskFile.model_validate(document)

    def run(self, kind: str, **fields: Any) -> tuple[int, WorkerReport]:
        """Run a task here and now."""
        file = self.task(kind, **fields)
        return run_task(file), self.report(file)

    def start(self, kind: str, failpoint: str = "", **fields: Any) -> "subprocess.Popen[bytes]":
        """Start a task as a worker process."""
        file = self.task(kind, **fields)
        path = self.directory / f"{kind}-{file.index}.task"
        path.write_text(file.model_dump_json(by_alias=True))
        environment = os.environ | {"WHIMBREL_FAILPOINT": failpoint, "PYTHONUNBUFFERED": "1"}
        log = (self.directory / f"{kind}-{file.index}.log").open("ab")
        return subprocess.Popen(
            [sys.executable, "-m", "whimbrel_worker", str(path)], env=environment, cwd=ROOT, stderr=log
        )

    def log(self, kind: str, index: int = 0) -> str:
        return (self.directory / f"{kind}-{index}.log").read_text()

    def report(self, file: TaskFile) -> WorkerReport:
        return WorkerReport.model_validate_json(Path(file.report_file).read_bytes())

    def prepare(self) -> None:
        """Pre-flight and schema, which must both be done."""
        for kind in ("preflight", "schema"):
            code, report = self.run(kind)
            assert code == 0, report.last_error


@dataclass
class Move(Tasks):
    """One migration from a MySQL account to a target."""

    mysql: MySQLAccess = field(kw_only=True)
    conninfo: str = field(kw_only=True)

    def source(self) -> dict[str, Any]:
        self.secret("mysql", username=self.mysql.user, password=self.mysql.password)
        spec: dict[str, Any] = {
            "host": self.mysql.host,
            "port": self.mysql.port,
            "credentialsSecretRef": {"name": "mysql"},
            "tls": {"mode": "Disabled"},
        }
        if self.mysql.ca_file:
            self.secret("mysql", **{"ca.crt": Path(self.mysql.ca_file).read_text()})
            spec["tls"] = {"mode": "VerifyFull", "caSecretRef": {"name": "mysql", "key": "ca.crt"}}
        return {"mysql": spec}

    def differences(self, tables: Sequence[str | tuple[str, str]]) -> list[str]:
        """What a comparison that shares no code with the product finds."""
        return independent_compare(self.mysql, self.conninfo, tables)

    def look(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


def order(file: TaskFile, **orders: Any) -> None:
    """Write an order for a running worker."""
    Path(file.orders_file).write_text(json.dumps(orders))
