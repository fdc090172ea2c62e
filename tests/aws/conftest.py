"""A cluster of Aurora DSQL lent for this run, and the stand-in that it is compared with. Without one named: skipped."""

import os
from collections.abc import Iterator

import pytest

from support.dsql_answers import Asked, run
from support.lent_dsql import Lent, Occupied, lent
from support.named_dsql import Keys, NamedDSQL, NotNamed, WronglyNamed
from whimbrel_testbed.dsql import dsql_server


@pytest.fixture(scope="session")
def real() -> Iterator[Lent]:
    """The cluster that the environment names; nothing of this run stays in it."""
    try:
        named = NamedDSQL.from_environment(os.environ)
        with lent(named) as borrowed:
            yield borrowed
    except NotNamed as nothing:
        pytest.skip(str(nothing))
    except (WronglyNamed, Occupied) as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def service(real: Lent) -> Asked:
    """The cluster with a schema for questions."""
    asked = Asked(real.cluster, real.schema("asked"))
    with real.cluster.connect() as connection:
        run(connection, f"CREATE SCHEMA {asked.schema}")
    return asked


@pytest.fixture(scope="session")
def stand_in(real: Lent) -> Iterator[Asked]:
    """A stand-in of this run's own with the same schema, so that texts that name tables can be compared."""
    with dsql_server() as server:
        keys = Keys(server.access_key_id, server.secret_access_key)
        cluster = NamedDSQL(server.endpoint, server.region, server.port, ca_file=server.ca_file, keys=keys)
        asked = Asked(cluster, real.schema("asked"))
        with cluster.connect() as connection:
            run(connection, f"CREATE SCHEMA {asked.schema}")
        yield asked
