"""How Whimbrel stops the writes to a source, in words for who must know before the application moves."""

from whimbrel_api.cutover import FreezeMethod
from whimbrel_operator.domain.migration.view import View


def how_frozen(view: View) -> str:
    """How Whimbrel stops the writes to the source, in words."""
    policy = view.spec.cutover.freeze
    if policy.method is FreezeMethod.SUPER_READ_ONLY:
        return "super_read_only"
    if policy.method is FreezeMethod.DENY_POLICY:
        return "a deny statement in the tables' policies"
    return f"locking the accounts {', '.join(policy.accounts)}"


def opens(view: View) -> str:
    """What is said of the source before its writers may go on, where Whimbrel had stopped them."""
    return f"Whimbrel undoes {how_frozen(view)}, then " if view.source_frozen else ""


def stays_frozen(view: View) -> str:
    """What is said of the source after the switch, where Whimbrel had stopped its writers."""
    return (
        f"point the application at the target; the source stays frozen ({how_frozen(view)}), because writes to it"
        " would be lost; what was so before stands in the target's journal under freezing"
    )
