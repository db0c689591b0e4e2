"""Who may train what, among workers that only see each other's trials.

A storage numbers trials one after the other, and shows all older ones to whoever has written one. So a
worker writes a trial first, then looks at those before it: the older of two that want the same has it, and
the younger withdraws.
"""

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState, create_trial

from nas_recalib.study.trials import (
    CONTINUES,
    ENQUEUED,
    FAILURE,
    OF_ITS_OWN,
    OUR_OWN,
    REPLAYED,
    WITHDRAWN,
    begun,
    comes_back,
    curve_of,
    failure_of,
    firsts,
    owed,
)


def stands(number: int, trials: Sequence[FrozenTrial], goal: int) -> bool:
    """Whether a trial that has just been written may be trained.

    Args:
        number: Its.
        trials: All of the study, read after it was written.
        goal: Trainings that the study is to end with.
    """
    this = next(trial for trial in trials if trial.number == number)
    serious = [trial for trial in trials if failure_of(trial) != WITHDRAWN]
    before = [trial for trial in serious if trial.number < number]
    if CONTINUES in this.user_attrs:
        return all(trial.user_attrs.get(CONTINUES) != this.user_attrs[CONTINUES] for trial in before)
    waited = ENQUEUED in this.system_attrs  # so that younger ones may have been there first
    first = firsts(trials)
    rivals = [trial for trial in serious if first(trial) < number or (waited and trial.number > number)]
    due = {trial.number for trial in owed(trials)}
    if any(trial.params == this.params and (trial.number in due or _claims(trial)) for trial in rivals):
        return False
    waiting = 0 if waited else sum(trial.state == TrialState.WAITING for trial in before)
    return len(begun(before)) + waiting < goal


def was_late(trial: FrozenTrial, trials: Sequence[FrozenTrial], goal: int) -> bool:
    """Whether a trial whose worker died does not stand, which that worker had no time to say."""
    if trial.user_attrs.get(FAILURE) == WITHDRAWN or REPLAYED in trial.user_attrs:  # it got no further
        return True
    return not curve_of(trial) and not stands(trial.number, trials, goal)


def unread_wish(trial: FrozenTrial) -> FrozenTrial | None:
    """As somebody enqueued it, a trial whose worker died before it described it."""
    if "architecture" in trial.user_attrs or ENQUEUED not in trial.system_attrs:
        return None
    return create_trial(
        state=TrialState.WAITING,
        user_attrs={key: value for key, value in trial.user_attrs.items() if key not in OUR_OWN},
        system_attrs={ENQUEUED: trial.system_attrs[ENQUEUED]},
    )


def _claims(trial: FrozenTrial) -> bool:
    return trial.state != TrialState.FAIL or (failure_of(trial) in OF_ITS_OWN and not comes_back(trial))
