"""Where a source's table stands on the target, told from its name and the manifest alone."""

import pytest

from whimbrel_api.migration import TableOverride, Tables
from whimbrel_worker.values.selection import possible_places

RENAMED = Tables(
    overrides=[TableOverride(name="shop.a", rename_to="b"), TableOverride(name="shop.c", rename_to="app.d")]
)


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("shop.t", {("shop", "t")}),
        ("shop.a", {("shop", "b")}),
        ("shop.c", {("app", "d")}),
        ("my.shop.t", {("my", "shop.t"), ("my.shop", "t")}),
    ],
)
def test_a_table_stands_where_its_name_or_its_override_says(name: str, places: set[tuple[str, str]]) -> None:
    assert possible_places(name, RENAMED) == places
