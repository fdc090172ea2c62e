"""Which cluster the environment names for `make test-aws`, and what is said where it names none. Nothing is reached."""

from pathlib import Path

import pytest

from support.lent_dsql import main
from support.named_dsql import Keys, NamedDSQL, NotNamed, WronglyNamed, region_of

REAL = "abcdefghij0123456789abcdef.dsql.eu-west-1.on.aws"
PRIVATE = "abcdefghij0123456789abcdef.dsql-fnh4.us-east-2.on.aws"


def named(**told: str) -> NamedDSQL:
    return NamedDSQL.from_environment({f"WHIMBREL_AWS_{name}": value for name, value in told.items()})


def test_an_endpoint_is_enough() -> None:
    assert named(DSQL_ENDPOINT=REAL) == NamedDSQL(REAL, "eu-west-1", 5432, "postgres", "admin", "", None)


def test_the_region_is_in_the_name_or_told() -> None:
    assert region_of(PRIVATE) == "us-east-2"
    assert named(DSQL_ENDPOINT=REAL, REGION="us-east-1").region == "us-east-1"
    assert named(DSQL_ENDPOINT="dsql.example.com", REGION="us-east-1").region == "us-east-1"


@pytest.mark.parametrize("told", [{}, {"DSQL_ENDPOINT": " "}, {"REGION": "us-east-1"}])
def test_without_an_endpoint_one_line_says_what_is_missing(told: dict[str, str]) -> None:
    with pytest.raises(NotNamed, match="WHIMBREL_AWS_DSQL_ENDPOINT is not set") as caught:
        named(**told)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"DSQL_ENDPOINT": "dsql.example.com"}, "WHIMBREL_AWS_REGION"),
        ({"DSQL_ENDPOINT": f"https://{REAL}"}, "host name alone"),
        ({"DSQL_ENDPOINT": f"{REAL}:5432"}, "host name alone"),
        ({"DSQL_ENDPOINT": REAL, "DSQL_PORT": "many"}, "WHIMBREL_AWS_DSQL_PORT"),
        ({"DSQL_ENDPOINT": REAL, "DSQL_CA_FILE": "/none"}, "/none"),
    ],
)
def test_what_cannot_be_is_told(told: dict[str, str], said: str) -> None:
    with pytest.raises(WronglyNamed, match=said):
        named(**told)


def test_make_goes_on_quietly_without_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("WHIMBREL_AWS_DSQL_ENDPOINT", raising=False)
    assert main(["check"]) == 3
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert err == ""


def test_secrets_are_written_only_where_they_are_needed(tmp_path: Path) -> None:
    authority = tmp_path / "ca.crt"
    authority.write_text("an authority")
    keys = Keys("AKIA", "s3cret", "tok3n")
    cluster = NamedDSQL(REAL, "eu-west-1", ca_file=str(authority), keys=keys)
    assert cluster.give_secret(tmp_path / "own", own_identity=True).keys() == {"dsql"}
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["ca.crt"]
    cluster.give_secret(tmp_path / "given", own_identity=False)
    assert sorted(path.name for path in (tmp_path / "given").iterdir()) == [
        "accessKeyId", "ca.crt", "secretAccessKey", "sessionToken",
    ]  # fmt: skip
    assert NamedDSQL(REAL, "eu-west-1").give_secret(tmp_path / "none", own_identity=True) == {}
    assert "s3cret" not in repr(cluster)
    assert "tok3n" not in repr(cluster)
