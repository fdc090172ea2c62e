"""The errors for a worker that was replaced, the same for every target. Who is fenced out when, targets decide."""

from whimbrel_worker.errors import FencedOut


def epoch_over(epoch: int, found: int | None, where: str) -> FencedOut:
    """For a worker of an epoch that is over; `found` is the target's, None where it holds none."""
    return FencedOut(
        f"epoch {epoch} of this worker is over",
        where=where,
        why=f"the target's control tables hold epoch {'none' if found is None else found}",
        todo="nothing: the operator starts a worker of the new epoch if one is wanted",
    )


def succeeded(where: str, why: str) -> FencedOut:
    """For a worker whose control row another one holds now."""
    return FencedOut(
        "another worker holds the control row now",
        where=where,
        why=why,
        todo="nothing: the successor goes on from the last committed position",
    )


def switched_before(where: str) -> FencedOut:
    """For who would give up a cutover that has switched."""
    return FencedOut(
        "the cutover is not given up: the target is switched",
        where=where,
        why="a fence that was ordered before has come first",
        todo="nothing: the operator reads the target and goes on from there",
    )
