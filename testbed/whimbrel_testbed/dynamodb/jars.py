"""DynamoDB Local's jars: read from the lock file, fetched from Maven Central by jgo, checked, and kept in the cache."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from whimbrel_testbed import cache, pins
from whimbrel_testbed.cache import TestbedError, announce

LOCK: Final = Path(__file__).with_name("jars.lock")
_AT_ONCE: Final = 6
_TIMEOUT_SECONDS: Final = 60
_ADVICE: Final = (
    "Check the network and its proxy settings (HTTPS_PROXY). Behind a mirror of Maven Central, name it as `central` in "
    "the section [repositories] of jgo's file ~/.config/jgo.conf. What was fetched so far is not kept; run it again."
)


@dataclass(frozen=True)
class Jar:
    """One jar: its Maven coordinates and the SHA-256 of its content, in hexadecimal."""

    group: str
    artifact: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def file(self) -> str:
        """The file's name; two groups never have an artifact of one name here."""
        return f"{self.artifact}-{self.version}.jar"


def locked_jars(text: str) -> list[Jar]:
    """Read the lock file: a line `group:artifact:version sha256` for each jar; lines with # in front are comments.

    >>> locked_jars("# jars\\norg.slf4j:slf4j-api:1.7.30 cdba")
    [Jar(group='org.slf4j', artifact='slf4j-api', version='1.7.30', sha256='cdba')]
    """
    found = []
    for coordinates, sha256 in (line.split() for line in text.splitlines() if line and not line.startswith("#")):
        group, artifact, version = coordinates.split(":")
        found.append(Jar(group, artifact, version, sha256))
    return found


def jars_directory() -> Path:
    """Return the directory with all jars of the lock file, fetched and checked where the cache has none."""
    text = LOCK.read_text(encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return cache.entry(f"dynamodb-local-{pins.DYNAMODB_LOCAL}-{digest}", lambda path: _fetch(locked_jars(text), path))


def _fetch(jars: Iterable[Jar], destination: Path) -> None:
    announce(f"fetching DynamoDB Local {pins.DYNAMODB_LOCAL} from Maven Central (28 MB, once)")
    with (
        tempfile.TemporaryDirectory(prefix="whimbrel-jars-") as scratch,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        started = [(jar, pool.submit(fetch_jar, jar, Path(scratch))) for jar in jars]
        try:
            for jar, fetched in started:
                shutil.move(fetched.result(), destination / jar.file)
        finally:
            pool.shutdown(cancel_futures=True)


def fetch_jar(jar: Jar, repository: Path) -> Path:
    """Fetch one jar into a local Maven repository of one's own and return its path.

    Raises TestbedError where it cannot be had, or has other content than the lock file says.
    """
    try:
        import requests
        from jgo.config import GlobalSettings
        from jgo.constants import MAVEN_CENTRAL_URL
        from jgo.maven import MavenContext
    except ImportError as error:
        raise TestbedError(
            f"The package {error.name} is needed to fetch DynamoDB Local: install the extra `testbed`."
        ) from error
    remote = {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}
    context = MavenContext(repo_cache=repository, remote_repos=remote, timeout=_TIMEOUT_SECONDS)
    try:
        path = Path(context.project(jar.group, jar.artifact).at_version(jar.version).artifact("", "jar").resolve())
    except (requests.RequestException, RuntimeError, OSError) as error:
        raise TestbedError(f"Fetching {jar} failed: {error}. {_ADVICE}") from error
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != jar.sha256:
        raise TestbedError(
            f"{jar} is not the jar that {LOCK.name} names: its SHA-256 is {found}, not {jar.sha256}. A mirror that "
            "serves another file, or a broken download: run it again; where it stays so, trust neither."
        )
    return path
