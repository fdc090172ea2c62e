"""What a person is told to run by hand on PolarDB's server is that, whatever a manifest calls slot and publication."""

from whimbrel_api.base import SecretRef
from whimbrel_api.endpoints import PolarDBSource
from whimbrel_api.migration import Tables
from whimbrel_api.tasks import ReverseOptions
from whimbrel_worker.endpoints.polardb.source import PolarDBLogSource
from whimbrel_worker.secrets import Secrets


def test_the_sql_to_run_by_hand_is_quoted() -> None:
    options = ReverseOptions(owner="o", slot_name="s", publication_name='x"; DROP DATABASE shop; --')
    spec = PolarDBSource(host="h", credentials_secret_ref=SecretRef(name="back"))
    source = PolarDBLogSource(spec, Secrets({}), options, wanted=Tables(), tables=list, ignored=lambda _: False)
    assert source.by_hand() == (
        f"in database {spec.database}: SELECT pg_drop_replication_slot('s'); "
        'DROP PUBLICATION IF EXISTS "x""; DROP DATABASE shop; --"'
    )
