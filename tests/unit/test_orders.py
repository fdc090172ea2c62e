"""Orders: one worker's part of a rate, whatever was written into its task file."""

import pytest

from whimbrel_api.tasks import Orders


@pytest.mark.parametrize(
    ("orders", "limit", "share"),
    [
        (Orders(), None, None),
        (Orders(), 1000, 500.0),
        (Orders(rows_per_second=300), 1000, 150.0),
        (Orders(rows_per_second=0), 1000, None),
        (Orders(rows_per_second=300, workers=3), 1000, 100.0),
        (Orders(workers=4), 1000, 250.0),
        (Orders(rows_per_second=1, workers=64), None, 1.0),
    ],
)
def test_a_workers_part_of_the_rate(orders: Orders, limit: int | None, share: float | None) -> None:
    assert orders.share(limit, workers=2) == share
