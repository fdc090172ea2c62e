"""The dashboard's queries as Grafana sends them. Who answers them stands in the tests."""


def as_grafana(expr: str) -> str:
    """An expression with what Grafana puts in the place of its variables, all namespaces and names chosen."""
    filled = expr.replace("$__rate_interval", "1m").replace("$namespace", ".*").replace("$name", ".*")
    assert "$" not in filled
    return filled
