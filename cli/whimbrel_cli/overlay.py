"""Puts the addresses of a test bed's servers into an example manifest. All else in the example stays as it is."""

from collections.abc import Mapping
from typing import Any

import yaml


def merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `patch` in it; mappings are merged, all else is replaced."""
    result = dict(base)
    for key, value in patch.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return result


def addresses(mysql_host: str, mysql_port: int, dsql_endpoint: str, dsql_port: int, region: str) -> dict[str, Any]:
    """All that a demo changes: where the two servers are, and which authority signed the target's certificate."""
    return {
        "spec": {
            "source": {"mysql": {"host": mysql_host, "port": mysql_port}},
            "target": {
                "auroraDSQL": {
                    "endpoint": dsql_endpoint,
                    "port": dsql_port,
                    "region": region,
                    "tls": {"mode": "VerifyFull", "caSecretRef": {"name": "dsql-ca", "key": "ca.crt"}},
                }
            },
        }
    }


def applied(example: str, patch: Mapping[str, Any]) -> str:
    """The example, a YAML document, with the patch in it, as YAML. Its comments are not kept."""
    return yaml.safe_dump(merged(yaml.safe_load(example), patch), sort_keys=False, allow_unicode=True)
