"""What the chart's questions say to a person. Asked of a real API server: tests/chart/test_install_hooks.py."""

from __future__ import annotations

from typing import Any

import pytest

from whimbrel_operator.installed import alive, holder
from whimbrel_operator.runtime.kubernetes.api import Call
from whimbrel_operator.runtime.kubernetes.kinds import MIGRATIONS
from whimbrel_operator.uninstall import Held, held, verdict


def body(name: str, **meta: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop", **meta}, "status": {"phase": "Following"}}


def test_a_held_release_names_what_holds_it_and_the_commands_for_each_namespace() -> None:
    found = [held("Migration", body("flights")), Held("ReverseSync", "stock", "back", "", ends=True)]
    told = verdict(found)
    assert "Migration shop/flights (phase Following)" in told
    assert "ReverseSync stock/back (is being deleted)" in told
    assert "kubectl -n shop delete migrations,validations,reversesyncs --all" in told
    assert "kubectl -n stock delete" in told
    assert "helm rollback" in told


def test_one_that_nobody_has_looked_at_yet_has_no_phase() -> None:
    assert "phase not known" in str(held("Validation", {"metadata": {"name": "a", "namespace": "b"}}))
    assert held("Migration", body("x", deletionTimestamp="2026-01-01T00:00:00Z")).ends


def test_a_long_list_is_cut_and_says_so() -> None:
    told = verdict([held("Migration", body(f"m{number:02}")) for number in range(50)])
    assert "50 resources" in told
    assert "and 30 more" in told
    assert len(told.splitlines()) < 40


def test_many_namespaces_are_cut_and_said_so_too() -> None:
    told = verdict([Held("Migration", f"n{number:02}", "shop", "", ends=False) for number in range(25)])
    assert told.count("--all") == 20
    assert "and 5 namespaces more" in told


def test_one_that_holds_it_is_one() -> None:
    assert "1 resource holds the finalizer" in verdict([held("Migration", body("flights"))])


def test_nothing_held_is_said_in_a_line() -> None:
    assert verdict([]).count("\n") == 0


@pytest.mark.parametrize(
    ("lease", "who"),
    [(None, ""), ({}, ""), ({"spec": {"holderIdentity": ""}}, ""), ({"spec": {"holderIdentity": "a"}}, "a")],
)
def test_a_lease_that_was_given_back_has_no_holder(lease: dict[str, Any] | None, who: str) -> None:
    assert holder(lease) == who


@pytest.mark.parametrize(
    ("pod", "counts"),
    [
        ({"metadata": {}}, True),
        ({"metadata": {}, "status": {"phase": "Running"}}, True),
        ({"metadata": {}, "status": {"phase": "Pending"}}, True),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running"}}, False),
        # The API server keeps a pod that was evicted until somebody deletes it.
        ({"metadata": {}, "status": {"phase": "Failed", "reason": "Evicted"}}, False),
    ],
)
def test_only_a_pod_that_shall_work_must_be_ready(pod: dict[str, Any], counts: bool) -> None:
    assert alive(pod) is counts


def test_an_empty_namespace_is_all_of_them() -> None:
    call = Call("GET", MIGRATIONS, "")
    assert call.path == "/apis/whimbrel.dev/v1alpha1/migrations"
    assert str(call) == "migrations in all namespaces"
    assert Call("GET", MIGRATIONS, "shop").path == "/apis/whimbrel.dev/v1alpha1/namespaces/shop/migrations"
