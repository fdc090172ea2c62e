"""What follows from a catalogue's rights: who counts, who always may, and names that trip up no screen and no SQL."""

from psycopg import sql

from whimbrel_api.cutover import WRITERS_NAMED
from whimbrel_worker.grants import OWNER, PUBLIC, Grants, Held, Later, Role
from whimbrel_worker.writers import judge, quoted

OURS, ADMIN, APP, GROUP, GONE = 1, 2, 3, 4, 99
ROLES = {
    OURS: Role("mover", ours=True),
    ADMIN: Role("admin"),
    APP: Role("app"),
    GROUP: Role("team", can_login=False),
}
PLACES = {("shop", "items")}


def held(holder: int, right: str = "INSERT", table: str = "items") -> Held:
    return Held("shop", table, holder, right)


def test_an_administrator_is_named_apart_as_a_superuser_is() -> None:
    grants = Grants(ROLES, {}, [held(OURS, OWNER), held(ADMIN)], [])
    found = judge(grants, PLACES, allowed=(), administrators={"admin"})
    assert (found.roles, found.superusers, found.account) == ([], ['"admin"'], '"mover"')
    assert judge(grants, PLACES, allowed=()).roles_total == 1


def test_memberships_in_a_circle_and_a_role_that_was_dropped_meanwhile_end() -> None:
    grants = Grants(ROLES, {APP: [GROUP], GROUP: [APP, GONE]}, [held(GONE), held(GROUP, "DELETE")], [])
    found = judge(grants, PLACES, allowed=())
    assert found.roles == [
        '"app" holds DELETE on 1 table of "shop" through "team"; holds INSERT on 1 table of "shop" through "99"'
    ]


def test_another_table_counts_neither_for_a_role_nor_for_public() -> None:
    grants = Grants(ROLES, {}, [held(APP, table="other"), held(PUBLIC, table="other")], [])
    assert (judge(grants, PLACES, allowed=()).roles_total, judge(grants, PLACES, allowed=()).tables) == (0, 0)


def test_whoever_is_not_named_is_counted() -> None:
    many = {number: Role(f"r{number:02}") for number in range(100, 130)}
    grants = Grants({OURS: ROLES[OURS], **many}, {}, [held(number) for number in many], [Later("", 100, "INSERT")])
    found = judge(grants, PLACES, allowed=["r100"])
    assert (found.roles_total, len(found.roles), len(found.remedies)) == (29, WRITERS_NAMED, WRITERS_NAMED)
    assert found.remedies[-1] == "and 20 more"
    assert len(found.notes) == 2


def test_names_are_quoted_on_one_line() -> None:
    assert quoted("app") == '"app"'
    assert quoted('a"b', "c") == '"a""b"."c"'
    assert quoted("a\nb") == 'U&"a\\+00000Ab"'
    assert quoted('\u202e"\\') == 'U&"\\+00202E""\\\\"'
    for name in ("naïve", "a.b", "a%s", "sel ect", "'"):
        assert quoted(name) == sql.Identifier(name).as_string(None)
