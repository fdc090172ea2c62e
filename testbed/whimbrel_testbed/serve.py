"""A server as a command: prints one line of JSON with all that a client needs and runs until it is interrupted."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import NoReturn

from whimbrel_testbed.kubernetes.cluster import kubernetes_cluster
from whimbrel_testbed.mysql import mysql_server
from whimbrel_testbed.postgres import postgres_server

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(server: AbstractContextManager[Mapping[str, object]]) -> None:
    """Enter the context, print what it yields as one line of JSON, wait for SIGINT, SIGTERM or SIGHUP, and leave it.

    The signals end it while it still starts, too. A second one during the clean-up is not taken.
    """
    for number in _ENDING:
        signal.signal(number, _leave)
    try:
        with server as facts:
            print(json.dumps(facts), flush=True)
            while True:
                signal.pause()
    except _Interrupted:
        return


class _Interrupted(BaseException):
    """One of the ending signals came; no `except Exception` on the way may take it."""


def _leave(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    for ending in _ENDING:
        signal.signal(ending, signal.SIG_IGN)
    raise _Interrupted


def serve_mysql() -> None:
    """Run a MySQL server for the command line: its administrator and its migration account."""
    serve(_mysql_facts())


def serve_postgres() -> None:
    """Run a PostgreSQL server for the command line."""
    serve(_postgres_facts())


def serve_kubernetes() -> None:
    """Run a Kubernetes cluster for the command line: its administrator's kubeconfig."""
    serve(_kubernetes_facts())


def serve_dynamodb() -> None:
    """Run DynamoDB Local for the command line."""
    serve(_dynamodb_facts())


def serve_polardb() -> None:
    """Run the stand-in of PolarDB's DynamoDB-compatible endpoint for the command line."""
    serve(_polardb_facts())


def serve_streams() -> None:
    """Run DynamoDB Local behind the stream server for the command line."""
    serve(_streams_facts())


@contextmanager
def _mysql_facts() -> Iterator[Mapping[str, object]]:
    with mysql_server() as server:
        yield {
            "kind": "mysql", "version": server.version, "host": server.host, "port": server.port, "user": server.user,
            "password": server.password, "migrationUser": server.migration.user,
            "migrationPassword": server.migration.password, "caFile": server.ca_file, "pid": server.pid,
        }  # fmt: skip


@contextmanager
def _postgres_facts() -> Iterator[Mapping[str, object]]:
    with postgres_server() as server:
        yield {
            "kind": "postgres", "version": server.version, "host": server.host, "port": server.port,
            "user": server.user,
            "password": server.password, "database": "postgres", "sslmode": "disable", "conninfo": server.conninfo,
            "pid": server.pid,
        }  # fmt: skip


@contextmanager
def _kubernetes_facts() -> Iterator[Mapping[str, object]]:
    with kubernetes_cluster() as cluster:
        yield {
            "kind": "kubernetes", "version": cluster.version, "server": cluster.server,
            "kubeconfig": str(cluster.kubeconfig), "pids": cluster.pids,
        }  # fmt: skip


@contextmanager
def _dynamodb_facts() -> Iterator[Mapping[str, object]]:
    from whimbrel_testbed.dynamodb.local import dynamodb_server

    with dynamodb_server() as server:
        yield {"kind": "dynamodb", "version": server.version, **server.facts(), "pid": server.pid}


@contextmanager
def _polardb_facts() -> Iterator[Mapping[str, object]]:
    from whimbrel_testbed.polardb.server import polardb_server

    with polardb_server() as server:
        yield {"kind": "polardb", **server.facts()}


@contextmanager
def _streams_facts() -> Iterator[Mapping[str, object]]:
    from whimbrel_testbed.streams.server import stream_server

    with stream_server() as server:
        yield {"kind": "streams", **server.facts()}
