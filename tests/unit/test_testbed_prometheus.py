"""Which Prometheus is taken: the one that is named, one on PATH, and none that is too old or only half there."""

from collections.abc import Callable
from pathlib import Path

import pytest

from whimbrel_testbed import cache, prometheus
from whimbrel_testbed.cache import TestbedError

_chosen: Callable[[], Path] = prometheus.programs.__wrapped__


def program(folder: Path, name: str, version: str) -> None:
    """A program that says its version as Prometheus' do."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{name}, version {version}+ds (branch: debian/sid)'\n")
    path.chmod(0o755)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WHIMBREL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("WHIMBREL_PROMETHEUS", raising=False)


def test_the_folder_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("prometheus", "promtool"):
        program(tmp_path, name, "2.53.3")
    monkeypatch.setenv("WHIMBREL_PROMETHEUS", str(tmp_path))
    assert _chosen() == tmp_path
    assert prometheus.version(tmp_path / "promtool") == (2, 53, 3)


def test_the_one_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("prometheus", "promtool"):
        program(tmp_path, name, "3.1.0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert _chosen() == tmp_path


def test_half_of_it_and_an_old_one_are_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIMBREL_PROMETHEUS", str(tmp_path))
    program(tmp_path, "prometheus", "2.30.0")
    with pytest.raises(TestbedError, match="does not hold prometheus and promtool"):
        _chosen()
    program(tmp_path, "promtool", "2.30.0")
    with pytest.raises(TestbedError, match=r"2\.30\.0; 2\.40 or later is needed.*apt install prometheus"):
        _chosen()


def test_one_that_cannot_be_fetched_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TestbedError, match=r"No Prometheus\. Install Prometheus.*WHIMBREL_PROMETHEUS"):
        _chosen()
    assert not [path for path in cache.cache_directory().iterdir() if path.is_dir()]
