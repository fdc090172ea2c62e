"""A sync never re-fires a cutover: the same manifest over whole lives, as Argo CD with self-healing applies it."""

from typing import Any

import pytest

from support.argo_lua import Json, act, merged, offered
from support.argo_moments import Told, live
from support.both_ways import WITH_WAY_BACK, steps
from support.world import World
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import Migration, MigrationSpec, MigrationStatus, Phase
from whimbrel_operator.reconcile import Outcome

STEERED = (("cutover", "approvedPlan"), ("cutover", "rollback"), ("paused",), ("cancel",))
"""What the example Application's ignoreDifferences names."""


class Kept(Told):
    """A migration that Argo CD puts back to what git says before every pass, as `kubectl apply` would.

    `git` is the spec there. `ignores`: with the example's ignoreDifferences and RespectIgnoreDifferences.
    """

    def __init__(self, world: World | None = None, *, ignores: bool = False, **spec: Any) -> None:
        super().__init__(world, **spec)
        self.git: Json = live(self.runtime.resource)["spec"]
        self.applied: Json = self.git
        self.ignores = ignores
        self.syncs = 0

    def once(self) -> Outcome:
        """A sync, then a pass of the operator."""
        self.sync()
        return super().once()

    def sync(self) -> None:
        """One sync: what git no longer says goes, what it says is set, all else stays."""
        now = live(self.runtime.resource)["spec"]
        wanted = self._respected(now) if self.ignores else self.git
        self._set(merged(now, merged(_gone(self.applied, self.git), wanted)))
        self.applied = self.git
        self.syncs += 1

    def _respected(self, now: Json) -> Json:
        """What git says, with the live value of every field that is ignored."""
        found: Json = merged(self.git, {})
        for *above, last in STEERED:
            theirs, ours = now, found
            for word in above:
                theirs, ours = theirs.get(word, {}), ours.setdefault(word, {})
            ours.pop(last, None)
            if last in theirs:
                ours[last] = theirs[last]
        return found

    def _set(self, spec: Json) -> None:
        """As an API server does: a spec that is as it was makes no new generation."""
        resource = self.runtime.resource
        assert isinstance(resource, Migration)
        new = MigrationSpec.model_validate(spec)
        if new != resource.spec:
            self.runtime.patch(**{field: getattr(new, field) for field in MigrationSpec.model_fields})

    def click(self, action: str) -> None:
        """A person takes an action in Argo CD."""
        obj = live(self.runtime.resource)
        assert action in offered(obj), (action, offered(obj))
        self._set(merged(obj, act(action, obj))["spec"])

    def commit(self, **cutover: object) -> None:
        """Another cutover policy in git, over what is there."""
        self.git = merged(self.git, {"cutover": cutover})


def _gone(applied: Json, git: Json) -> Json:
    """The merge patch that takes away what was applied before and git does not say any more."""
    found: Json = {}
    for key, item in applied.items():
        if key not in git:
            found[key] = None
        elif isinstance(item, dict) and isinstance(git[key], dict) and (inner := _gone(item, git[key])):
            found[key] = inner
    return found


def switches(life: Kept) -> int:
    return steps(life).count("switched")


def cut_over(*, ignores: bool = False, **spec: Any) -> Kept:
    """Cut over by an approval that stands in git and stays there; by the action where git's word is not heeded."""
    life = Kept(ignores=ignores, **spec)
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.commit(approvedPlan=life.status.plan.hash)
    if ignores:
        life.go(5)
        assert life.status.cutover.state is CutoverState.AWAITING_APPROVAL
        life.click("approve")
    life.until_phase(Phase.COMPLETED)
    return life


@pytest.mark.parametrize("made_anew", [False, True])
def test_after_the_cutover_the_same_manifest_does_nothing(made_anew: bool) -> None:
    """Also where Argo CD has made the resource anew, without a status, as after a deletion."""
    life = cut_over()
    life.go(3)
    epoch, generation = life.status.epoch, life.runtime.resource.metadata.generation
    if made_anew:
        life.runtime.write_status(MigrationStatus())
    life.go(60)
    assert life.syncs > 60
    assert (life.status.phase, life.status.cutover.state) == (Phase.COMPLETED, CutoverState.SWITCHED)
    assert (switches(life), life.status.epoch) == (1, epoch)
    assert life.runtime.resource.metadata.generation == generation


def test_an_automatic_cutover_happens_once_too() -> None:
    life = Kept(cutover={"mode": "Automatic"})
    life.until_phase(Phase.COMPLETED)
    life.go(60)
    assert (switches(life), life.status.phase) == (1, Phase.COMPLETED)


def rolled_back(mode: str = "Manual", *, ignores: bool = False) -> Kept:
    """Over there, by the approval in git or by itself, and back by the action rollback."""
    if mode == "Manual":
        life = cut_over(ignores=ignores, **WITH_WAY_BACK)
    else:
        life = Kept(ignores=ignores, **WITH_WAY_BACK, cutover={"mode": mode})
        life.until_phase(Phase.COMPLETED)
    life.until(lambda _: life.said("RollbackReady")[0] == "True")
    life.click("rollback")
    life.until_state(CutoverState.ROLLING_BACK)
    life.world.back_quiet = 60.0
    life.until_phase(Phase.FOLLOWING, 200)
    return life


@pytest.mark.parametrize("ignores", [False, True])
@pytest.mark.parametrize(("mode", "then"), [("Manual", "OldPlan"), ("Automatic", "NotApproved")])
def test_after_a_rollback_the_same_manifest_does_nothing(mode: str, then: str, ignores: bool) -> None:
    """Nor does one in which the rollback is taken back and the old approval stays."""
    life = rolled_back(mode, ignores=ignores)
    life.go(60)
    assert (switches(life), life.status.phase) == (1, Phase.FOLLOWING)
    assert life.said("CutoverApproved")[:2] == ("False", "RollbackAsked")
    life.ignores = False
    life.commit(rollback=False)
    life.go(60)
    assert (switches(life), life.status.phase) == (1, Phase.FOLLOWING)
    assert life.said("CutoverApproved")[:2] == ("False", then)


def test_after_a_time_out_the_same_manifest_does_nothing() -> None:
    life = Kept(World(quiet=False), cutover={"timeout": "20s"})
    life.until_state(CutoverState.AWAITING_APPROVAL)
    life.commit(approvedPlan=life.status.plan.hash)
    life.until_state(CutoverState.TIMED_OUT)
    life.until_phase(Phase.FOLLOWING)
    life.world.quiet = True
    life.go(60)
    assert (switches(life), life.status.phase) == (0, Phase.FOLLOWING)
    assert life.said("CutoverApproved")[1] == "OldPlan"
    life.commit(approvedPlan=life.status.plan.hash)
    life.until_phase(Phase.COMPLETED)
    assert switches(life) == 1


def test_a_person_s_new_word_after_a_rollback_does_fire_one() -> None:
    """So the tests above would see a cutover that fires again."""
    life = rolled_back(ignores=True)
    life.go(5)
    life.click("approve")
    life.until_phase(Phase.COMPLETED, 200)
    life.go(50)
    assert (switches(life), life.status.phase) == (2, Phase.COMPLETED)


def test_an_action_outlives_self_healing_where_git_does_not_speak_of_it() -> None:
    life = Kept()
    life.until_phase(Phase.FOLLOWING)
    life.click("pause")
    life.go(5)
    assert life.said("Paused")[0] == "True"
    life.git = merged(life.git, {"paused": False})
    life.go(5)
    assert life.said("Paused")[0] == "False"
