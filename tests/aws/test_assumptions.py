"""What Aurora DSQL answers beside what its stand-in answers. A difference is a fault of the stand-in: correct it."""

import os

import pytest

from support.dsql_answers import Asked, put
from support.dsql_questions import LONG, QUESTIONS

LONG_TOO = os.environ.get("WHIMBREL_AWS_LONG") == "1"


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_stand_in_answers_as_the_service(service: Asked, stand_in: Asked, name: str) -> None:
    said, assumed = put(QUESTIONS[name], service), put(QUESTIONS[name], stand_in)
    print(f"\n{name}\n    service:  {said}\n    stand-in: {assumed}", flush=True)
    assert assumed == said, "correct testbed/whimbrel_testbed/dsql (refusals.py, limits.py) and docs/testbed-dsql.md"


@pytest.mark.skipif(not LONG_TOO, reason="takes 70 minutes: WHIMBREL_AWS_LONG=1")
@pytest.mark.timeout(4200)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a transaction of 301 s", "54000 transaction age limit of 300s exceeded"),
        ("a session of 65 minutes", "FATAL"),
    ],
)
def test_what_takes_long_is_as_the_stand_in_has_it(service: Asked, name: str, expected: str) -> None:
    """The stand-in's own answer is not waited for: its limits are dials, and its tests turn them."""
    said = LONG[name](service)
    print(f"\n{name}\n    service:  {said}\n    expected: {expected}", flush=True)
    assert str(said).startswith(expected)
