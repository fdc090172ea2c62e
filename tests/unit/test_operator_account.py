"""The operator as the image's user, who is a number without a name, as most pods' users are."""

import asyncio
import getpass

import kopf
import pytest

from whimbrel_operator import handlers


def test_it_starts_under_an_account_that_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr(getpass, "getuser", nameless)
    monkeypatch.delenv("POD_ID", raising=False)
    spawned: list[bool] = []

    async def scenario() -> None:
        async with asyncio.timeout(20):
            await handlers.serve(kopf.OperatorRegistry(), ("shop",), asyncio.Event(), lambda: spawned.append(True))

    # It has come as far as asking for a cluster, of which nothing was said here.
    with pytest.raises(kopf.LoginError):
        asyncio.run(scenario())
    assert spawned == [True]
