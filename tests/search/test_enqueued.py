"""Enqueued trials are trained, answered from cache, refused or requeued, whichever worker dies."""

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


def test_an_enqueued_trial_whose_worker_dies_before_finding_a_younger_duplicate_is_withdrawn(
    make, clock, monkeypatch
):
    first, second, third = make(), make(), make()
    indices = second.scheduler.next_action(second.study.get_trials(), 6).indices
    second.study.enqueue_trial(first.space.indices_to_params(indices))
    monkeypatch.setattr(second, "_start", die)
    with pytest.raises(SystemExit):
        second.next_job()
    first._writer.create(first.scheduler.spec_of(indices))  # by a worker that read the study before
    for now in (0, 61, 125):
        clock.now = now
        third.heartbeat.stale_trials([t for t in third.study.get_trials() if t.state == TrialState.RUNNING])
    third._refresh()
    assert states(third)[0] == "withdrawn"


def test_an_enqueued_trial_that_another_worker_reads_first_leaves_no_trial_behind(make, monkeypatch):
    slow, quick = make(first=()), make(first=())
    quick.study.enqueue_trial(quick.space.indices_to_params(quick.scheduler.next_action([], 6).indices))
    pop = slow.study._pop_waiting_trial_id

    def after_another():
        quick.next_job()
        return pop()

    monkeypatch.setattr(slow.study, "_pop_waiting_trial_id", after_another)
    assert slow._start_enqueued() is None
    assert states(slow) == ["RUNNING"]


def test_an_enqueued_trial_that_is_out_of_memory_in_cache_is_not_trained(make):
    worker = make(first=(), proxy=StandIn(verdict=lambda _: Failure("out-of-memory", "no room")))
    for _ in range(2):
        job = worker.next_job()
        worker.fail(job.number, Failure("out-of-memory", "no room"))
    worker.study.enqueue_trial(worker.space.indices_to_params(worker.space.indices_of(job.architecture)))
    assert worker.next_job().architecture != job.architecture
    assert "replayed_from" in worker.study.get_trials()[2].user_attrs


def test_an_enqueued_trial_whose_worker_dies_before_reading_it_is_enqueued_again(make, clock, monkeypatch):
    hasty, other = make(target=2), make(target=2)
    params = other.space.indices_to_params(other.scheduler.next_action(other.study.get_trials(), 2).indices)
    other.study.enqueue_trial(params)
    monkeypatch.setattr(hasty.scheduler, "spec_of", die)
    with pytest.raises(SystemExit):
        hasty.next_job()
    for now in (0, 61, 125):
        clock.now = now
        other._refresh()
    assert states(other) == ["lost", "WAITING"]
    assert other.space.indices_to_params(other.space.indices_of(other.next_job().architecture)) == params


def test_of_an_enqueued_and_a_younger_trial_that_are_both_withdrawn_one_is_requeued(make, monkeypatch):
    first, second, third = (make(target=2, strategy="random", first=()) for _ in range(3))
    indices = first.space.indices_of(all_architectures(first.space)[0])
    first.study.enqueue_trial(first.space.indices_to_params(indices))
    spec, spec_of = TrialSpec(indices), first.scheduler.spec_of
    late = []

    def meanwhile(indices):
        late.append(second._writer.create(spec))
        seen = second.study.get_trials()
        monkeypatch.setattr(second, "_trials", lambda: seen)
        return spec_of(indices)

    monkeypatch.setattr(first.scheduler, "spec_of", meanwhile)
    assert first._start_enqueued() is None
    assert second._start(late[0], spec) is None
    assert states(third) == ["withdrawn"] * 2
    assert third.space.indices_of(third.next_job().architecture) == indices


def test_an_enqueued_trial_beyond_the_target_is_requeued_with_a_higher_target(make, monkeypatch):
    first, second, later = make(target=1, first=()), make(target=1, first=()), make(target=2, first=())
    enqueued = [
        first.space.indices_to_params(first.space.indices_of(one))
        for one in all_architectures(first.space)[:2]
    ]
    for params in enqueued:
        first.study.enqueue_trial(params)
    seen = second._refresh()
    finish(first, first.next_job())
    monkeypatch.setattr(second, "_refresh", iter([seen, first._refresh()]).__next__)
    assert second.next_job() is None
    assert states(second) == ["COMPLETE", "withdrawn"]
    assert later.space.encode(later.next_job().architecture) == enqueued[1]


def test_an_enqueued_trial_over_budget_is_not_trained_if_its_worker_dies(tmp_path, monkeypatch):
    study = optuna.create_study(direction="maximize")
    space = SearchSpace.parse(SPACE, "tiny")
    dear = max(all_architectures(space), key=lambda one: one.cost().macs)
    study.enqueue_trial(space.encode(dear))
    budget = Budget(macs=dear.cost().macs - 1)
    dead, finder = (make_search(study, tmp_path, StandIn(), budget=budget) for _ in range(2))
    dead.begin(3, Silent())
    monkeypatch.setattr(dead, "_fail_and_count", die)
    with pytest.raises(SystemExit):
        dead.next_job()
    run_here(finder, 3, Silent())
    assert dear not in finder.proxy.trained
    assert states(finder)[:1] == ["lost"]
    assert "over-budget" in states(finder)


def test_an_enqueued_trial_whose_worker_dies_while_answering_it_with_an_error_is_trained(
    tmp_path, monkeypatch
):
    study = optuna.create_study(direction="maximize")
    indices = (0, 0, 0)
    dead, finder = (make_search(study, tmp_path, StandIn(), first=()) for _ in range(2))
    dead.begin(3, Silent())
    broken = dead._start(dead._writer.create(TrialSpec(indices)), TrialSpec(indices))
    dead.fail(broken.number, Failure("error", "a bug", "traceback"))
    study.enqueue_trial(dead.space.indices_to_params(indices))
    monkeypatch.setattr(study._storage, "set_trial_state_values", die_at(TrialState.FAIL, study._storage))
    with pytest.raises(SystemExit):
        dead.next_job()
    monkeypatch.undo()
    finder.begin(3, Silent())
    assert finder.next_job().architecture == broken.architecture


def die_at(last, storage):
    write = storage.set_trial_state_values

    def call(identity, state, values=None):
        return die() if state == last else write(identity, state, values)

    return call


@pytest.mark.parametrize("added", [{}, {"user_attrs": {"why": "a hunch"}}])
def test_an_enqueued_trial_is_enqueued_again_with_its_user_attributes(tmp_path, monkeypatch, added):
    study = optuna.create_study(direction="maximize")
    dead, finder = (make_search(study, tmp_path, StandIn()) for _ in range(2))
    params = dead.space.indices_to_params((1, 1, 1))
    study.enqueue_trial(params, **added)
    enqueue_again(dead, finder, monkeypatch)
    assert study.get_trials()[1].user_attrs == added.get("user_attrs", {})
    assert finder.space.encode(finder.next_job().architecture) == params


def test_an_enqueued_trial_with_reserved_attributes_fails_even_if_its_worker_dies(make, clock):
    dead, other = make(), make()
    params = dead.space.indices_to_params((1, 1, 1))
    for _ in range(2):
        dead.study.enqueue_trial(params, user_attrs={"architecture": "vanilla", "continues": 0})
    dead.study._pop_waiting_trial_id()
    with pytest.raises(StopSearch, match="only a search writes: architecture, continues"):
        other.next_job()
    pass_away(clock, other)
    assert other.next_job().resumed_from == ()
    assert states(other)[:2] == ["lost", "error"]


def test_a_waiting_trial_with_parameters_is_enqueued_again_with_them(tmp_path, monkeypatch):
    study = optuna.create_study(direction="maximize")
    dead, finder = (make_search(study, tmp_path, StandIn()) for _ in range(2))
    params = dead.space.indices_to_params((1, 1, 1))
    kinds = distributions(dead.space)
    study.add_trial(create_trial(state=TrialState.WAITING, params=params, distributions=kinds))
    enqueue_again(dead, finder, monkeypatch)
    assert finder.space.encode(finder.next_job().architecture) == params


def enqueue_again(dead, finder, monkeypatch):
    dead.begin(3, Silent())
    monkeypatch.setattr(dead.scheduler, "spec_of", die)
    with pytest.raises(SystemExit):
        dead.next_job()
    finder.begin(3, Silent())
    finder._refresh()
    assert states(finder) == ["lost", "WAITING"]


def test_a_waiting_trial_without_parameters_is_withdrawn_if_a_younger_one_is_the_same(make, monkeypatch):
    first, second = make(first=()), make(first=())
    first.study.add_trial(create_trial(state=TrialState.WAITING))
    spec_of = first.scheduler.spec_of

    def meanwhile(indices):
        second._writer.create(TrialSpec(indices))  # by a worker that read the study before
        return spec_of(indices)

    monkeypatch.setattr(first.scheduler, "spec_of", meanwhile)
    assert first._start_enqueued() is None
    assert states(first) == ["withdrawn", "RUNNING"]


def test_a_duplicate_enqueued_during_the_training_is_withdrawn_by_a_single_worker(tmp_path):
    search = make_search(optuna.create_study(direction="maximize"), tmp_path, StandIn())
    search.begin(5, Silent())
    job = search.next_job()
    for _ in range(2):
        search.study.enqueue_trial(search.space.indices_to_params(search.space.indices_of(job.architecture)))
    assert search.next_job().architecture != job.architecture
    assert states(search) == ["RUNNING", "withdrawn", "withdrawn", "RUNNING"]
