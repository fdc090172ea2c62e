"""What a person reads when the target does not let a worker in: what, where, why and what to do, and never a secret."""

import dataclasses
import socket
from pathlib import Path

import pytest

from support.targets import TargetCase
from whimbrel_api.base import SecretKeyRef, SecretRef, Tls
from whimbrel_testbed.certificates import make_authority
from whimbrel_testbed.dsql import DSQLServer
from whimbrel_worker.endpoints.dsql.cluster import SignIn
from whimbrel_worker.endpoints.postgres.server import PostgresConnector
from whimbrel_worker.endpoints.postgres.target import PostgresTarget
from whimbrel_worker.errors import ConfigurationError, Transient, WorkerError
from whimbrel_worker.secrets import Secrets
from whimbrel_worker.tasks.targets import DSQLConnector


def sign_in_of(case: TargetCase) -> DSQLConnector:
    assert isinstance(case.connector, DSQLConnector)
    return case.connector


def directory_of(connector: DSQLConnector) -> Path:
    return Path(connector.sign_in.secrets.directories["dsql"])


def refusal(connector: DSQLConnector | PostgresConnector, kind: type[WorkerError]) -> WorkerError:
    with pytest.raises(kind) as refused:
        connector.connect()
    return refused.value


def with_spec(connector: DSQLConnector, **changes: object) -> DSQLConnector:
    spec = connector.sign_in.spec.model_copy(update=changes)
    return DSQLConnector(dataclasses.replace(connector.sign_in, spec=spec))


def test_a_good_sign_in_says_the_version(case: TargetCase) -> None:
    assert "PostgreSQL" in case.target().check_sign_in()


def test_wrong_dsql_keys_say_where_to_look_and_never_show_them(dsql_case: TargetCase) -> None:
    connector = sign_in_of(dsql_case)
    (directory_of(connector) / "secretAccessKey").write_text("wrong-key-hunter2")
    error = refusal(connector, ConfigurationError)
    assert "refused the sign-in" in str(error)
    assert "access denied" in str(error)
    assert "credentialsSecretRef" in error.todo
    assert "hunter2" not in str(error)
    assert "X-Amz" not in str(error)


def test_an_expired_token_is_named_with_the_clock(dsql_case: TargetCase) -> None:
    connector = sign_in_of(dsql_case)
    dsql_case.dials.set(token_expiry_leeway=-100_000.0)
    try:
        error = refusal(connector, ConfigurationError)
    finally:
        dsql_case.dials.set(token_expiry_leeway=0.0)
    assert "Signature expired" in str(error)
    assert "clock" in error.todo


def test_a_strange_authority_is_refused(dsql_case: TargetCase, tmp_path: Path) -> None:
    connector = sign_in_of(dsql_case)
    strange = make_authority(tmp_path).ca_file
    secrets = Secrets({**connector.sign_in.secrets.directories, "strange": str(Path(strange).parent)})
    spec = connector.sign_in.spec.model_copy(
        update={"tls": Tls(ca_secret_ref=SecretKeyRef(name="strange", key=Path(strange).name))}
    )
    error = refusal(DSQLConnector(SignIn(spec, secrets)), ConfigurationError)
    assert "certificate cannot be trusted" in str(error)
    assert "tls.caSecretRef" in error.todo


def test_the_system_does_not_trust_the_stand_in(dsql_case: TargetCase) -> None:
    connector = sign_in_of(dsql_case)
    error = refusal(with_spec(connector, tls=Tls()), ConfigurationError)
    assert "certificate cannot be trusted" in str(error)


def test_another_host_name_is_refused(dsql_case: TargetCase) -> None:
    connector = sign_in_of(dsql_case)
    error = refusal(with_spec(connector, endpoint="127.0.0.1"), ConfigurationError)
    assert "127.0.0.1" in error.where


def test_nobody_listening_is_worth_another_try(dsql_case: TargetCase) -> None:
    connector = sign_in_of(dsql_case)
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        port = placeholder.getsockname()[1]
    error = refusal(with_spec(connector, port=port), Transient)
    assert "cannot be reached" in str(error)
    assert f":{port}" in error.where
    assert "it is tried again" in error.todo


def test_an_unknown_host_is_named(dsql_case: TargetCase) -> None:
    connector = sign_in_of(dsql_case)
    error = refusal(with_spec(connector, endpoint="no-such-host.invalid"), Transient)
    assert "no-such-host.invalid" in str(error)


def test_a_missing_secret_key_is_named(dsql_case: TargetCase) -> None:
    connector = sign_in_of(dsql_case)
    (directory_of(connector) / "accessKeyId").unlink()
    error = refusal(connector, ConfigurationError)
    assert error.what == "Secret dsql has no key accessKeyId"
    assert "kubectl describe secret dsql" in error.todo


def test_a_rotated_secret_counts_for_the_next_connection(dsql_case: TargetCase, dsql: DSQLServer) -> None:
    connector = sign_in_of(dsql_case)
    (directory_of(connector) / "secretAccessKey").write_text("old")
    refusal(connector, ConfigurationError)
    (directory_of(connector) / "secretAccessKey").write_text(dsql.secret_access_key + "\n")
    connector.connect().close()


def test_a_wrong_postgresql_password_is_named_but_not_shown(postgres_case: TargetCase) -> None:
    assert isinstance(postgres_case.connector, PostgresConnector)
    directory = Path(postgres_case.connector.secrets.directories["postgres"])
    (directory / "password").write_text("hunter2")
    error = refusal(postgres_case.connector, ConfigurationError)
    assert "password authentication failed" in str(error)
    assert "hunter2" not in str(error)


def test_a_database_that_is_not_there_is_named(postgres_case: TargetCase) -> None:
    assert isinstance(postgres_case.connector, PostgresConnector)
    spec = postgres_case.connector.spec.model_copy(update={"database": "nowhere"})
    error = refusal(dataclasses.replace(postgres_case.connector, spec=spec), ConfigurationError)
    assert "no such database" in str(error)
    assert SecretRef(name="postgres") == spec.credentials_secret_ref


def test_an_account_that_may_not_create_is_told_what_to_grant(postgres_case: TargetCase, tmp_path: Path) -> None:
    assert isinstance(postgres_case.connector, PostgresConnector)
    postgres_case.change("DROP ROLE IF EXISTS reader")
    postgres_case.change("CREATE ROLE reader LOGIN PASSWORD 'reads-only'")
    (tmp_path / "username").write_text("reader")
    (tmp_path / "password").write_text("reads-only")
    connector = dataclasses.replace(postgres_case.connector, secrets=Secrets({"postgres": str(tmp_path)}))
    target = PostgresTarget(connector, postgres_case.profile, "default/case", 1)
    with pytest.raises(ConfigurationError, match="a privilege is missing on the target") as refused:
        target.control().ensure()
    assert "permission denied for database postgres" in refused.value.why
    assert "grant it to the migration's role" in refused.value.todo
    assert "reads-only" not in str(refused.value)
