"""Who may train what, among workers that only see each other's trials.

A storage numbers trials one after the other, and shows all older ones to whoever has written one. So a
worker writes a trial first, then looks at those before it: the older of two that want the same has it, and
the younger withdraws.
"""

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from nas_recalib.study.trials import CONTINUES, OF_ITS_OWN, WITHDRAWN, begun, failure_of, owed

_ENQUEUED = "fixed_params"  # Optuna's attribute of a trial that somebody enqueued


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
    waited = _ENQUEUED in this.system_attrs  # so that younger ones may have been there first
    rivals = [trial for trial in serious if trial.number != number] if waited else before
    due = {trial.number for trial in owed(trials)}
    if any(trial.params == this.params and (trial.number in due or _claims(trial)) for trial in rivals):
        return False
    waiting = 0 if waited else sum(trial.state == TrialState.WAITING for trial in before)
    return len(begun(before)) + waiting < goal


def _claims(trial: FrozenTrial) -> bool:
    return trial.state != TrialState.FAIL or failure_of(trial) in OF_ITS_OWN
