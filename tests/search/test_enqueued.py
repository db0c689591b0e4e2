"""What somebody enqueued is trained, answered, refused or put back, whoever dies meanwhile."""

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from stand_in import (
    SPACE,
    Silent,
    StandIn,
    all_architectures,
    die,
    finish,
    make_search,
    pass_away,
    states,
)

from nas_recalib.costs import Budget
from nas_recalib.errors import StopSearch
from nas_recalib.proxy.objective import Failure
from nas_recalib.search.local import run_here
from nas_recalib.search.samplers.base import distributions
from nas_recalib.search.trial_writer import TrialSpec
from nas_recalib.space import SearchSpace


def test_an_enqueued_trial_whose_worker_dies_before_it_saw_a_younger_one_is_not_trained_twice(
    make, clock, monkeypatch
):
    first, second, third = make(), make(), make()
    indices = second.scheduler.next(second.study.get_trials(), 6).indices
    second.study.enqueue_trial(first.space.indices_to_params(indices))
    monkeypatch.setattr(second, "_take", die)
    with pytest.raises(SystemExit):
        second.next()
    first._writer.begin(first.scheduler.enqueued_spec(indices))  # by one that looked before it was enqueued
    for now in (0, 61, 125):
        clock.now = now
        third.heartbeat.dead([t for t in third.study.get_trials() if t.state == TrialState.RUNNING])
    third._look()
    assert states(third)[0] == "withdrawn"


def test_an_enqueued_trial_that_another_reads_first_leaves_no_trial_behind(make, monkeypatch):
    slow, quick = make(first=()), make(first=())
    quick.study.enqueue_trial(quick.space.indices_to_params(quick.scheduler.next([], 6).indices))
    pop = slow.study._pop_waiting_trial_id

    def after_another():
        quick.next()
        return pop()

    monkeypatch.setattr(slow.study, "_pop_waiting_trial_id", after_another)
    assert slow._take_enqueued() is None
    assert states(slow) == ["RUNNING"]


def test_the_answer_to_an_enqueued_trial_that_has_no_room_is_not_trained(make):
    worker = make(first=(), proxy=StandIn(verdict=lambda _: Failure("out-of-memory", "no room")))
    for _ in range(2):
        job = worker.next()
        worker.fail(job.number, Failure("out-of-memory", "no room"))
    worker.study.enqueue_trial(worker.space.indices_to_params(worker.space.indices_of(job.architecture)))
    assert worker.next().architecture != job.architecture
    assert "replayed_from" in worker.study.get_trials()[2].user_attrs


def test_an_enqueued_trial_whose_worker_dies_before_it_read_it_is_enqueued_anew(make, clock, monkeypatch):
    hasty, other = make(target=2), make(target=2)
    wish = other.space.indices_to_params(other.scheduler.next(other.study.get_trials(), 2).indices)
    other.study.enqueue_trial(wish)
    monkeypatch.setattr(hasty.scheduler, "by_hand", die)
    with pytest.raises(SystemExit):
        hasty.next()
    for now in (0, 61, 125):
        clock.now = now
        other._look()
    assert states(other) == ["lost", "WAITING"]
    assert other.space.indices_to_params(other.space.indices_of(other.next().architecture)) == wish


def test_of_an_enqueued_and_a_younger_trial_that_both_withdraw_one_is_trained(make, monkeypatch):
    first, second, third = (make(target=2, strategy="random", first=()) for _ in range(3))
    indices = first.space.indices_of(all_architectures(first.space)[0])
    first.study.enqueue_trial(first.space.indices_to_params(indices))
    spec, enqueued_spec = TrialSpec(indices), first.scheduler.enqueued_spec
    late = []

    def meanwhile(indices):
        late.append(second._writer.begin(spec))
        seen = second.study.get_trials()
        monkeypatch.setattr(second, "_trials", lambda: seen)
        return enqueued_spec(indices)

    monkeypatch.setattr(first.scheduler, "by_hand", meanwhile)
    assert first._take_enqueued() is None
    assert second._take(late[0], spec) is None
    assert states(third) == ["withdrawn"] * 2
    assert third.space.indices_of(third.next().architecture) == indices


def test_an_enqueued_trial_that_there_was_no_room_for_is_trained_where_there_is_more(make, monkeypatch):
    first, second, later = make(target=1, first=()), make(target=1, first=()), make(target=2, first=())
    wishes = [first.space.encode(one) for one in all_architectures(first.space)[:2]]
    for wish in wishes:
        first.study.enqueue_trial(wish)
    seen = second._look()
    finish(first, first.next())
    monkeypatch.setattr(second, "_look", iter([seen, first._look()]).__next__)
    assert second.next() is None
    assert states(second) == ["COMPLETE", "withdrawn"]
    assert later.space.encode(later.next().architecture) == wishes[1]


def test_what_is_over_budget_is_not_trained_where_who_was_to_refuse_it_dies(tmp_path, monkeypatch):
    study = optuna.create_study(direction="maximize")
    space = SearchSpace.parse(SPACE, "tiny")
    dear = max(all_architectures(space), key=lambda one: one.cost().macs)
    study.enqueue_trial(space.encode(dear))
    budget = Budget(macs=dear.cost().macs - 1)
    dead, finder = (make_search(study, tmp_path, StandIn(), budget=budget) for _ in range(2))
    dead.begin(3, Silent())
    monkeypatch.setattr(dead, "_count_failure", die)
    with pytest.raises(SystemExit):
        dead.next()
    run_here(finder, 3, Silent())
    assert dear not in finder.proxy.trained
    assert states(finder)[:1] == ["lost"]
    assert "over-budget" in states(finder)


def test_who_dies_while_it_answers_an_enqueued_trial_leaves_it_to_be_trained_where_that_was_a_bug(
    tmp_path, monkeypatch
):
    study = optuna.create_study(direction="maximize")
    indices = (0, 0, 0)
    dead, finder = (make_search(study, tmp_path, StandIn(), first=()) for _ in range(2))
    dead.begin(3, Silent())
    broken = dead._take(dead._writer.begin(TrialSpec(indices)), TrialSpec(indices))
    dead.fail(broken.number, Failure("error", "a bug", "traceback"))
    study.enqueue_trial(dead.space.indices_to_params(indices))
    monkeypatch.setattr(study._storage, "set_trial_state_values", dies_of(TrialState.FAIL, study._storage))
    with pytest.raises(SystemExit):
        dead.next()
    monkeypatch.undo()
    finder.begin(3, Silent())
    assert finder.next().architecture == broken.architecture


def dies_of(last, storage):
    write = storage.set_trial_state_values

    def call(identity, state, values=None):
        return die() if state == last else write(identity, state, values)

    return call


@pytest.mark.parametrize("added", [{}, {"user_attrs": {"why": "a hunch"}}])
def test_an_enqueued_trial_is_put_back_with_all_that_it_carried(tmp_path, monkeypatch, added):
    study = optuna.create_study(direction="maximize")
    dead, finder = (make_search(study, tmp_path, StandIn()) for _ in range(2))
    wish = dead.space.indices_to_params((1, 1, 1))
    study.enqueue_trial(wish, **added)
    put_back(dead, finder, monkeypatch)
    assert study.get_trials()[1].user_attrs == added.get("user_attrs", {})
    assert finder.space.encode(finder.next().architecture) == wish


def test_an_enqueued_trial_that_looks_like_a_searchs_own_is_dropped_even_by_who_dies(make, clock):
    dead, other = make(), make()
    wish = dead.space.indices_to_params((1, 1, 1))
    for _ in range(2):
        dead.study.enqueue_trial(wish, user_attrs={"architecture": "vanilla", "continues": 0})
    dead.study._pop_waiting_trial_id()
    with pytest.raises(StopSearch, match="only a search writes: architecture, continues"):
        other.next()
    pass_away(clock, other)
    assert other.next().after == ()
    assert states(other)[:2] == ["lost", "error"]


def test_a_waiting_trial_that_has_its_parameters_is_put_back_with_them(tmp_path, monkeypatch):
    study = optuna.create_study(direction="maximize")
    dead, finder = (make_search(study, tmp_path, StandIn()) for _ in range(2))
    wish = dead.space.indices_to_params((1, 1, 1))
    kinds = distributions(dead.space)
    study.add_trial(create_trial(state=TrialState.WAITING, params=wish, distributions=kinds))
    put_back(dead, finder, monkeypatch)
    assert finder.space.encode(finder.next().architecture) == wish


def put_back(dead, finder, monkeypatch):
    dead.begin(3, Silent())
    monkeypatch.setattr(dead.scheduler, "by_hand", die)
    with pytest.raises(SystemExit):
        dead.next()
    finder.begin(3, Silent())
    finder._look()
    assert states(finder) == ["lost", "WAITING"]


def test_a_waiting_trial_without_wishes_is_not_what_a_younger_one_is(make, monkeypatch):
    first, second = make(first=()), make(first=())
    first.study.add_trial(create_trial(state=TrialState.WAITING))
    enqueued_spec = first.scheduler.enqueued_spec

    def meanwhile(indices):
        second._writer.begin(TrialSpec(indices))  # by one that looked before
        return enqueued_spec(indices)

    monkeypatch.setattr(first.scheduler, "by_hand", meanwhile)
    assert first._take_enqueued() is None
    assert states(first) == ["withdrawn", "RUNNING"]


def test_what_is_enqueued_while_it_is_trained_is_not_trained_twice_by_one_that_is_alone(tmp_path):
    search = make_search(optuna.create_study(direction="maximize"), tmp_path, StandIn())
    search.begin(5, Silent())
    job = search.next()
    for _ in range(2):
        search.study.enqueue_trial(search.space.indices_to_params(search.space.indices_of(job.architecture)))
    assert search.next().architecture != job.architecture
    assert states(search) == ["RUNNING", "withdrawn", "withdrawn", "RUNNING"]
