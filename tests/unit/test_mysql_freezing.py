"""What an administrator is told to undo by hand is what was changed, and nothing else."""

import pytest

from whimbrel_api.cutover import FreezeMethod
from whimbrel_worker.endpoints.mysql.freezing import Account, Former

ASKED = (Account("app", "%"), Account("o'dd", "10.0.0.1"))


@pytest.mark.parametrize(
    ("former", "by_hand"),
    [
        (Former(FreezeMethod.SUPER_READ_ONLY), "SET GLOBAL read_only = OFF"),
        (Former(FreezeMethod.SUPER_READ_ONLY, read_only=True), "SET GLOBAL super_read_only = OFF"),
        (Former(FreezeMethod.SUPER_READ_ONLY, read_only=True, super_read_only=True), ""),
        (
            Former(FreezeMethod.LOCK_ACCOUNTS, asked=ASKED, unlocked=ASKED),
            "ALTER USER 'app'@'%', 'o''dd'@'10.0.0.1' ACCOUNT UNLOCK",
        ),
        (Former(FreezeMethod.LOCK_ACCOUNTS, asked=ASKED), ""),
    ],
)
def test_what_is_undone_by_hand_is_what_was_changed(former: Former, by_hand: str) -> None:
    assert former.by_hand() == by_hand
    assert Former.parse(former.detail()) == former
