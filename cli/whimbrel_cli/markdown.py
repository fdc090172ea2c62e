"""The record of a migration as Markdown, for a person and for a ticket. What stands in it is made in history."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from whimbrel_cli.figures import count, one_line, size, span

JSON = dict[str, Any]
_CHECK_HEADS: Final = ("By", "Result", "Rows compared", "Differences", "Inconclusive", "Compared", "Ended")


def markdown(record: JSON) -> str:
    """The whole document, with a line's end at its end."""
    named = record["migration"]
    title = f"# Migration {named['namespace']}/{named['name']}: {record['phase']}"
    said = [f"Written {record['writtenAt']}. All times are UTC."]
    said += [f"**Next:** {_text(record['next'])}"] if record["next"] else []
    parts = [title, *said]
    for heading, body in _sections(record):
        parts += [f"## {heading}", body] if body else []
    return "\n\n".join(parts) + "\n"


def _sections(record: JSON) -> Iterator[tuple[str, str]]:
    yield "Plan", _listed(_plan(record["plan"]))
    yield "Times", _table(("Phase", "Entered", "Lasted"), _times(record["times"]))
    yield "Rows", _listed(_rows(record))
    yield "Tables", _table(("Table", "State", "Rows", "Differences", "Message"), _tables(record["tables"]))
    yield "Comparisons", _table(_CHECK_HEADS, _comparisons(record["comparisons"]))
    yield "Cutover", _cutover(record)
    yield (
        "Way back",
        _table(("Name", "Phase", "Slot", "Changes", "Lag"), (_way_back(each) for each in record["wayBack"])),
    )
    yield "Conditions", _table(("Type", "Status", "Reason", "Since", "Message"), map(_condition, record["conditions"]))
    yield "Events", _table(("Time", "Reason", "Times", "Message"), map(_event, record["events"]))
    yield "Not known", "\n".join(f"- {_text(each)}" for each in record["notKnown"])


def _plan(plan: JSON) -> Iterator[tuple[str, str]]:
    yield "Source", plan["source"]
    yield "Target", plan["target"]
    yield "Mode", plan["mode"]
    include, exclude = plan["tables"]["include"], plan["tables"]["exclude"]
    yield "Tables", (", ".join(include) or "all") + (f", without {', '.join(exclude)}" if exclude else "")
    limits = plan["thresholds"]
    yield "Thresholds", f"lag {limits['lag']}, differences {limits['differences']}, {limits['samples']} samples"
    yield "Plan", f"{plan['hash'] or '–'} (attempt {plan['attempt']}), epoch {plan['epoch']}"
    yield "Approved", _approved(plan)
    yield "Cutover", f"{plan['cutoverMode']}, writes stopped by {plan['sourceFreeze']}, timeout {plan['timeout']}"
    yield "Way back", "asked for" if plan["wayBack"] else "none"
    yield "Written by", plan["writePath"]


def _approved(plan: JSON) -> str:
    if not plan["approvedPlan"]:
        return "no plan"
    same = plan["approvedPlan"] == plan["hash"]
    which = "this plan" if same else f"another plan, {plan['approvedPlan']}"
    return which + (f", since {plan['approvedAt']}" if plan["approvedAt"] else "")


def _times(times: Sequence[JSON]) -> Iterator[Sequence[str]]:
    for each in times:
        yield each["phase"], each["at"], span(each["seconds"]) if each["seconds"] is not None else ""


def _rows(record: JSON) -> Iterator[tuple[str, str]]:
    copy, stream = record["snapshot"], record["stream"]
    tables = f"{copy['tablesDone']} of {copy['tablesTotal']} tables"
    yield (
        "Copied",
        f"{count(copy['rowsCopied'])} of {count(copy['rowsTotal'])} rows, {tables}, {size(copy['bytesCopied'])}",
    )
    yield "Changes applied", count(stream["changesApplied"])
    yield "Last change", stream["lastChangeTime"] or ""
    if stream["lagObservedAt"]:
        yield "Lag", f"{span(stream['lagSeconds'])} at {stream['lagObservedAt']}"
    yield "Position", stream["position"]


def _tables(tables: Sequence[JSON]) -> Iterator[Sequence[str]]:
    for each in tables:
        found = "" if each["differences"] is None else count(each["differences"])
        rows = f"{count(each['rowsCopied'])}/{count(each['rowsTotal'])}"
        yield each["name"], each["state"], rows, found, each["message"]


def _comparisons(found: Sequence[JSON]) -> Iterator[Sequence[str]]:
    for each in found:
        kinds = ", ".join(f"{number} {kind}" for kind, number in each["differences"].items() if number) or "0"
        what = each["compared"] or "every row"
        rows, unsure = count(each["rowsCompared"]), count(each["inconclusive"])
        yield each["by"], each["result"] or "–", rows, kinds, unsure, what, each["completedAt"] or ""


def _cutover(record: JSON) -> str:
    found, pause = record["cutover"], record["writePause"]
    facts = [
        ("State", found["state"]), ("Message", found["message"]), ("Begun", found["startedAt"] or ""),
        ("Ended", found["completedAt"] or ""), ("Source at rest at", found["freezePosition"]),
        ("Rolled back", found["rolledBackAt"] or ""), ("Write pause", _pause(pause)),
    ]  # fmt: skip
    steps = ((each["name"], each["at"] or "", each["by"], each["position"], each["detail"]) for each in found["steps"])
    hooks = (
        (each["point"], each["name"], each["state"], each["startedAt"] or "", each["finishedAt"] or "", each["message"])
        for each in found["hooks"]
    )
    parts = [
        _listed(facts),
        _table(("Step", "Proven", "By", "Position", "Seen"), steps),
        _table(("Point", "Hook", "State", "Started", "Ended", "Message"), hooks),
    ]
    return "\n\n".join(part for part in parts if part)


def _pause(pause: JSON | None) -> str:
    if pause is None:
        return ""
    least = pause["atLeastSeconds"]
    proven = f", at least {span(least)} (from the source's rest to the opened target)" if least is not None else ""
    return f"at most {span(pause['atMostSeconds'])} (from the request to stop writing to the end){proven}"


def _way_back(each: JSON) -> Sequence[str]:
    return each["name"], each["phase"], each["slot"], count(each["changesApplied"]), span(each["lagSeconds"])


def _condition(each: JSON) -> Sequence[str]:
    return each["type"], each["status"], each["reason"], each["lastTransitionTime"], each["message"]


def _event(each: JSON) -> Sequence[str]:
    warns = "⚠ " if each["type"] == "Warning" else ""
    return each["at"], f"{warns}{each['reason']}", str(each["count"]), each["message"]


def _listed(facts: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"- **{name}:** {_text(value)}" for name, value in facts if value)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of the rows; empty where there is none."""
    found = [f"| {' | '.join(map(_text, row))} |" for row in rows]
    return "\n".join([f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *found]) if found else ""


def _text(value: str) -> str:
    """A text from elsewhere on one line, in which nothing is read as Markdown's own signs."""
    return "".join(f"\\{char}" if char in "\\|`*_<>[]#" else char for char in one_line(value))
