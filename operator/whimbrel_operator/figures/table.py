"""docs/metrics.md, made from the catalogue of figures, which says what stands in it. Nothing is served here."""

from collections.abc import Iterable
from typing import Final

from whimbrel_operator.figures import catalogue
from whimbrel_operator.figures.catalogue import Figure

_HEAD: Final = """\
# Metrics

Generated from operator/whimbrel_operator/figures/catalogue.py by `make generate`.

At `/metrics` of the operator's Service, from the replica that holds the Lease; how to scrape it:
[kubernetes.md](kubernetes.md#metrics). `namespace` and `name` are the resource's, `kind` is Migration, Validation or
ReverseSync, `task` is what a worker does, such as snapshot, stream or check. No figure has a label for a table: the
number of series grows with the resources alone. A figure that is not known has no series. What to do when an alert
comes: [runbook.md](runbook.md).
"""
_PARTS: Final = (
    ("Migrations", "", catalogue.MIGRATION),
    ("Validations", "", catalogue.VALIDATION),
    ("Ways back (ReverseSyncs)", "", catalogue.WAY_BACK),
    ("Any resource", "", catalogue.ANY_KIND),
    (
        "Workers",
        "Workers report to the operator, and it adds up what they count: over the restarts of a worker, and each thing "
        "once. The sums begin at 0 with each operator, as `rate()` and `increase()` expect it.",
        catalogue.WORKER,
    ),
    ("The operator itself", "", catalogue.OF_THE_PROCESS),
)


def render() -> str:
    """The page as Markdown."""
    return "\n".join([_HEAD, *(_part(*part) for part in _PARTS)])


def _part(heading: str, text: str, figures: Iterable[Figure]) -> str:
    told = f"{text}\n\n" if text else ""
    rows = "\n".join(_row(figure) for figure in figures)
    return f"## {heading}\n\n{told}| metric | type | labels | meaning |\n|---|---|---|---|\n{rows}\n"


def _row(figure: Figure) -> str:
    return f"| `{figure.name}` | {figure.type} | {', '.join(figure.labels)} | {figure.help} |"
