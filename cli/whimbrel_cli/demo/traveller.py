"""The application that moves between both sides, and how long its writes stopped each time, by its own clock."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from whimbrel_cli.demo.options import Options
from whimbrel_cli.demo.stage import Application, Done, Side, Stage


@dataclass(frozen=True)
class Leg:
    """A stretch of writing on one side."""

    side: Side
    done: Done


@dataclass(frozen=True)
class Pause:
    """Between the last write that one side has accepted and the first of the other; None where one has accepted none.

    `held`: for how many of them the application could have gone on, and waited for the demo's own comparison.
    """

    before: Side
    after: Side
    seconds: float | None
    held: float


@dataclass
class Traveller:
    """A context. At most one application writes at a time; each has a seed of its own, from the demo's on."""

    stage: Stage
    options: Options
    legs: list[Leg] = field(default_factory=list)
    side: Side | None = None
    """Where it writes now."""
    _held: list[float] = field(default_factory=list)
    _now: Application | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def start(self, side: Side, *, held: float = 0.0) -> None:
        """Begin to write there. `held`: seconds for which it might have begun before."""
        seed = self.options.seed + len(self.legs)
        application = self.stage.application(side, rate=self.options.rate, seed=seed)
        self._now, self.side = self._stack.enter_context(application), side
        self._held.append(held)

    def stop(self) -> Done | None:
        """Stop writing; None where it does not write. Raises TestbedError where it had failed."""
        if self._now is None or self.side is None:
            return None
        done = self._now.stop()
        self.legs.append(Leg(self.side, done))
        self._now = self.side = None
        return done

    def raise_failure(self) -> None:
        """Raises TestbedError where the application has failed."""
        if self._now is not None:
            self._now.raise_failure()

    def writes(self) -> bool:
        """Whether a write of this stretch was accepted; known up to a second later."""
        return self._now is not None and self._now.counts.first_write is not None

    def pauses(self) -> list[Pause]:
        """Between each two stretches that have ended."""
        pairs = zip(self.legs, self.legs[1:], self._held[1:], strict=False)
        return [Pause(one.side, other.side, _between(one.done, other.done), held) for one, other, held in pairs]


def _between(one: Done, other: Done) -> float | None:
    if one.last_write is None or other.first_write is None:
        return None
    return other.first_write - one.last_write
