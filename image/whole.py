"""Whether what was left is all that operator and workers need: `python -m image.whole`, run in the last build
stage by the image's own interpreter. What they do is not tried here."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Final

from image.slim import AWS_SERVICES

OURS: Final = ("whimbrel_api", "whimbrel_operator", "whimbrel_worker")


def modules(package: ModuleType) -> Iterator[str]:
    """The names of a package's modules, but for those that run when they are imported."""
    found = (each.name for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}."))
    return (name for name in found if not name.endswith(".__main__"))


def main() -> int:
    """Import every module of ours, and make every client for which files were kept."""
    names = [name for package in OURS for name in modules(importlib.import_module(package))]
    for name in names:
        importlib.import_module(name)
    session = importlib.import_module("botocore.session").get_session()
    for service in sorted(AWS_SERVICES):
        session.create_client(service, region_name="eu-west-1", aws_access_key_id="-", aws_secret_access_key="-")
    for client in ("kubernetes.client", "kubernetes.aio.client"):
        for name in ("ApiClient", "ApiException", "Configuration", "CustomObjectsApi"):
            getattr(importlib.import_module(client), name)
    print(f"whole: {len(names)} modules imported")
    return 0


if __name__ == "__main__":
    sys.exit(main())
