"""Exit codes of the command and the error that carries one. What leads to them stands with the commands."""

from enum import IntEnum


class Exit(IntEnum):
    """What `whimbrel` ends with."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    STALLED = 3
    DIFFERENT = 4
    TIMED_OUT = 5
    INTERRUPTED = 130


EXIT_CODES = """\b
Exit codes:
  0    done
  1    failed, or the migration was cancelled
  2    wrong usage, a malformed manifest, or a resource that is not known
  3    stalled: a person has to act before it can go on
  4    a comparison found differences, or could not decide
  5    the time given by --timeout is over; run it again to go on
  130  interrupted; run it again to go on"""


class CliError(Exception):
    """A failure in two or three readable lines: what happened, and what to do about it."""

    def __init__(self, what: str, todo: str = "", code: Exit = Exit.FAILED) -> None:
        self.what, self.todo, self.code = what, todo, code
        super().__init__(what)
