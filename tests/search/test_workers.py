"""Several workers on one study, in one process: who does what is decided by the study alone."""

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from stand_in import (
    Silent,
    StandIn,
    all_architectures,
    finish,
    formula,
    make_search,
    pass_away,
    states,
)

from nas_recalib.errors import InputError, StopSearch
from nas_recalib.proxy.objective import Failure
from nas_recalib.proxy.train import Epoch
from nas_recalib.search.checkpoints import Checkpoints
from nas_recalib.search.job import Step, train
from nas_recalib.search.samplers.base import distributions
from nas_recalib.search.trial_writer import TrialSpec
from nas_recalib.study.trials import finished, to_resume
from nas_recalib.study.worker_lock import locked_worker, worker_has_ended


def test_no_two_train_the_same_and_none_begins_more_than_asked(make):
    workers = [make(target=7, strategy="random") for _ in range(4)]
    jobs = [(worker, worker.next()) for worker in workers for _ in range(2)]
    handed = [(worker, job) for worker, job in jobs if job]
    assert len(handed) == len({job.architecture for _, job in handed}) == 7
    assert not any(worker.done for worker in workers), "somebody may yet die"
    for worker, job in handed:
        finish(worker, job)
    assert [worker.next() for worker in workers] == [None] * 4
    assert all(worker.done and worker.reached for worker in workers)
    assert len(finished(workers[0].study)) == 7


def test_of_two_that_write_the_same_at_once_the_older_has_it(make, monkeypatch):
    first, second = make(), make()
    seen = second._look()
    job = first.next()
    monkeypatch.setattr(second, "_look", iter([seen, first._look()]).__next__)
    other = second.next()
    assert other.architecture != job.architecture
    assert states(first) == ["RUNNING", "withdrawn", "RUNNING"]


def test_of_two_that_begin_the_last_at_once_the_older_does(make, monkeypatch):
    first, second = make(target=1, first=()), make(target=1, first=())
    seen = second._look()
    assert first.next()
    monkeypatch.setattr(second, "_look", iter([seen, first._look()]).__next__)
    assert second.next() is None
    assert not second.done
    assert states(first) == ["RUNNING", "withdrawn"]


def test_a_worker_without_a_sign_of_life_is_buried_and_its_training_gone_on_with(make, clock):
    dead, alive = make(), make()
    job = dead.next()
    dead.report(job.number, next(train(dead.proxy, job, dead.checkpoints)))
    for now in (0, 61, 119):
        clock.now = now
        one = alive.next()
        assert job.number not in one.after
        finish(alive, one)
    clock.now = 125
    again = alive.next()
    assert again.after == (job.number,)
    finish(alive, again)
    assert alive.proxy.resumed == [job.architecture]
    late = Step(Epoch(2, 1.0, 0.5), 2.0)
    assert dead.report(job.number, late), "it was not dead after all: it stops"
    dead.end(job.number)
    assert states(alive)[job.number] == "lost"
    assert len({str(trial.params) for trial in finished(alive.study)}) == len(finished(alive.study)) == 4


@pytest.mark.parametrize("on", [False, True])
def test_who_dies_before_it_saw_that_another_was_first_leaves_nothing_to_go_on_with(
    make, clock, monkeypatch, on
):
    first, second, third = make(), make(), make()
    if on:
        first.report((job := first.next()).number, next(train(first.proxy, job, first.checkpoints)))
        first.requeue_running()
    seen = second._look()
    job = first.next()
    assert (job.after != ()) == on
    monkeypatch.setattr(second, "_look", lambda: seen)
    monkeypatch.setattr(second, "_take", lambda *_: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        second.next()
    for now in (0, 61, 125):
        clock.now = now
        first.heartbeat.sign()
        finish(third, third.next())
    assert states(first)[job.number : job.number + 2] == ["RUNNING", "withdrawn"]
    assert len({str(t.params) for t in finished(third.study)}) == len(finished(third.study)) == 3


def test_what_has_told_an_epoch_is_gone_on_with_whatever_the_one_who_finds_it_wants(make, clock):
    dead, modest = make(target=6), make(target=1)
    jobs = [dead.next() for _ in range(3)]
    for job in jobs:
        dead.report(job.number, next(train(dead.proxy, job, dead.checkpoints)))
    for now in (0, 61, 125):
        clock.now = now
        modest.next()
    assert states(dead)[:3] == ["lost"] * 3


def test_what_was_begun_earlier_is_not_begun_again_while_it_goes_on_under_a_younger_number(make, clock):
    dead, slow, quick = make(first=()), make(first=()), make(first=())
    job = dead.next()
    spec = TrialSpec(slow.space.indices_of(job.architecture))
    late = slow._writer.begin(spec)  # written by one that looked before
    pass_away(clock, quick)
    slow.heartbeat.sign()
    assert states(quick)[0] == "lost"
    assert quick.next().after == (job.number,)
    assert slow._take(late, spec) is None


def test_who_dies_while_it_withdraws_has_withdrawn(make, clock):
    dead, finder = make(first=()), make(first=())
    job = dead.next()
    identity = dead._running[job.number].trial._trial_id
    dead.study._storage.set_trial_user_attr(identity, "failure", "withdrawn")
    pass_away(clock, finder)
    assert states(finder) == ["withdrawn"]


def test_what_has_told_an_epoch_of_several_objectives_is_gone_on_with_all_the_same(tmp_path):
    study = optuna.create_study(directions=["maximize", "minimize"])
    given = {"objectives": ("accuracy", "macs"), "strategy": "random", "first": (), "study": study}
    dead, modest = (make_search(folder=tmp_path, proxy=StandIn(), **given) for _ in range(2))
    dead.begin(2, Silent())
    for job in [dead.next(), dead.next()]:
        dead.report(job.number, next(train(dead.proxy, job, dead.checkpoints)))
    modest.begin(1, Silent())
    modest._look()
    assert states(modest) == ["lost"] * 2


def test_what_failed_by_a_bug_with_half_batches_is_tried_again_by_others(make):
    first, second = make(first=("vanilla",)), make(first=("vanilla",))
    for failure in (Failure("out-of-memory", "no room"), Failure("error", "a bug", "traceback")):
        job = first.next()
        first.fail(job.number, failure)
    spec = second.scheduler.next(second.study.get_trials(), 6)
    assert spec.indices == second.space.indices_of(job.architecture)
    assert second._take(second._writer.begin(spec), spec), "else it would be proposed again for ever"


def test_a_checkpoint_that_cannot_be_deleted_ends_nothing(make, monkeypatch):
    worker = make()

    def out_of_reach(self, number):
        raise InputError("the store is away")

    monkeypatch.setattr(Checkpoints, "drop", out_of_reach)
    finish(worker, worker.next())
    assert states(worker) == ["COMPLETE"]


def test_a_worker_that_gives_signs_of_life_is_never_buried(make, clock):
    busy, other = make(target=30), make(target=30)
    job = busy.next()
    for minute in range(20):
        clock.now = 60 * minute
        busy.heartbeat.sign()
        finish(other, other.next())
    assert states(other)[job.number] == "RUNNING"


def test_nobody_dies_of_a_time_without_storage(make, clock):
    busy, other = make(), make()
    job = busy.next()
    finish(other, other.next())
    clock.now = 3600  # nobody could write, nobody could look
    finish(other, other.next())
    busy.heartbeat.sign()
    clock.now = 3700
    finish(other, other.next())
    assert states(other)[job.number] == "RUNNING"


def test_of_two_that_find_the_same_dead_one_goes_on(make, clock):
    dead, *alive = make(), make(), make()
    job = dead.next()
    for now in (0, 61, 125):
        clock.now = now
        running = [t for t in dead.study.get_trials() if t.state == TrialState.RUNNING]
        found = [worker.heartbeat.dead(running) for worker in alive]
    assert [len(some) for some in found] == [1, 1]
    jobs = [worker.next() for worker in alive]
    assert sorted(one.after for one in jobs) == [(), (job.number,)]


def test_what_is_given_back_is_gone_on_with_at_once_and_does_not_count_as_a_death(make):
    leaving, other = make(retries=0), make(retries=0)
    job = leaving.next()
    leaving.report(job.number, next(train(leaving.proxy, job, leaving.checkpoints)))
    leaving.requeue_running()
    again = other.next()
    assert again.after == (job.number,)
    finish(other, again)
    assert "attempt" not in other.study.get_trials()[again.number].user_attrs


def test_a_trial_written_by_a_call_that_broke_off_is_withdrawn(make):
    worker = make()
    spec = worker.scheduler.next(worker.study.get_trials(), 6)
    worker._writer.begin(spec)  # and then the connection broke
    job = worker.next()
    assert states(worker) == ["withdrawn", "RUNNING"]
    assert job.architecture == worker.space.from_indices(spec.indices)


def test_a_checkpoint_that_cannot_be_kept_stops_the_search_and_gives_the_trial_back(make):
    worker = make()
    job = worker.next()
    with pytest.raises(StopSearch, match="no room"):
        worker.fail(job.number, Failure("checkpoint", "no room"))
    assert states(worker) == ["interrupted"]


def test_a_worker_of_this_machine_is_known_to_have_ended_at_once(tmp_path):
    with locked_worker(tmp_path, False) as worker, locked_worker(tmp_path, False) as other:
        assert worker != other
        assert not worker_has_ended(tmp_path, worker)
        lock = tmp_path / "workers" / f"{worker.partition('/')[2]}.lock"
        content = lock.read_text()
    lock.write_text(content)  # as a killed process leaves it
    assert worker_has_ended(tmp_path, worker)
    lock.write_text("another machine")
    assert not worker_has_ended(tmp_path, worker)
    assert not worker_has_ended(tmp_path, "nobody/0000")
    assert not worker_has_ended(tmp_path, "x/../../etc/passwd")


def test_what_an_older_release_trained_anew_is_not_gone_on_with(make):
    worker = make(first=())
    job = worker.next()
    indices = worker.space.indices_of(job.architecture)
    worker.requeue_running()
    assert len(to_resume(worker.study.get_trials())) == 1
    anew = worker._writer.begin(TrialSpec(indices))
    worker._writer.end(anew, TrialState.COMPLETE, 0.3)
    assert to_resume(worker.study.get_trials()) == []


def test_a_trial_that_was_only_about_to_be_buried_still_holds_its_place(make):
    busy, other = (make(pruner="halving", target=3, first=()) for _ in range(2))
    jobs = [busy.next() for _ in range(3)]
    for job in sorted(jobs, key=lambda job: -formula(job.architecture)):
        for step in train(busy.proxy, job, busy.checkpoints):
            if busy.report(job.number, step):
                break
        busy.end(job.number)
    on = busy.next()
    assert on.after
    trial = busy._running[on.number].trial
    other.study._storage.set_trial_user_attr(trial._trial_id, "failure", "lost")  # and then it was killed
    assert other.next() is None
    assert not other.done, "what rises from a rung is waited for"
    finish(busy, on)
    assert other.next() is None or other.reached


def test_a_search_is_not_done_while_it_trains(make):
    worker = make(target=1, first=())
    job = worker.next()
    worker._goal = 0
    assert worker.next() is None
    assert not worker.done
    finish(worker, job)
    assert worker.next() is None
    assert worker.done


def test_what_another_study_left_and_this_one_broke_off_is_gone_on_with_after_the_goal(make):
    worker = make(target=0, pruner="halving")
    indices = worker.space.indices_of(all_architectures(worker.space)[0])
    worker.study.add_trial(
        create_trial(
            state=TrialState.PRUNED,
            value=0.5,
            params=worker.space.indices_to_params(indices),
            distributions=distributions(worker.space),
            user_attrs={"taken_from": "other/0", "architecture": str(worker.space.from_indices(indices))},
            intermediate_values={1: 0.5},
        )
    )
    assert worker.next().after == (0,)
    worker.requeue_running()
    job = worker.next()
    assert job.after == (1, 0)
    finish(worker, job)
    assert worker.next() is None
    assert worker.reached
    assert states(worker) == ["PRUNED", "interrupted", "COMPLETE"]
