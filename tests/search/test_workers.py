"""Several workers on one study, in one process: conflicts, stale trials, interruptions."""

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
from nas_recalib.study.location import locked_worker, worker_has_ended
from nas_recalib.study.trials import finished, to_resume


def test_no_architecture_is_trained_twice_and_no_more_than_the_target_are_started(make):
    workers = [make(target=7, strategy="random") for _ in range(4)]
    jobs = [(worker, worker.next_job()) for worker in workers for _ in range(2)]
    handed = [(worker, job) for worker, job in jobs if job]
    assert len(handed) == len({job.architecture for _, job in handed}) == 7
    assert not any(worker.done for worker in workers), "a worker may still die"
    for worker, job in handed:
        finish(worker, job)
    assert [worker.next_job() for worker in workers] == [None] * 4
    assert all(worker.done and worker.reached for worker in workers)
    assert len(finished(workers[0].study)) == 7


def test_of_two_trials_of_the_same_architecture_the_younger_is_withdrawn(make, monkeypatch):
    first, second = make(), make()
    seen = second._refresh()
    job = first.next_job()
    monkeypatch.setattr(second, "_refresh", iter([seen, first._refresh()]).__next__)
    other = second.next_job()
    assert other.architecture != job.architecture
    assert states(first) == ["RUNNING", "withdrawn", "RUNNING"]


def test_of_two_trials_started_with_one_left_the_younger_is_withdrawn(make, monkeypatch):
    first, second = make(target=1, first=()), make(target=1, first=())
    seen = second._refresh()
    assert first.next_job()
    monkeypatch.setattr(second, "_refresh", iter([seen, first._refresh()]).__next__)
    assert second.next_job() is None
    assert not second.done
    assert states(first) == ["RUNNING", "withdrawn"]


def test_a_trial_without_heartbeats_is_marked_as_lost_and_resumed(make, clock):
    dead, alive = make(), make()
    job = dead.next_job()
    dead.report(job.number, next(train(dead.proxy, job, dead.checkpoints)))
    for now in (0, 61, 119):
        clock.now = now
        one = alive.next_job()
        assert job.number not in one.resumed_from
        finish(alive, one)
    clock.now = 125
    again = alive.next_job()
    assert again.resumed_from == (job.number,)
    finish(alive, again)
    assert alive.proxy.resumed == [job.architecture]
    late = Step(Epoch(2, 1.0, 0.5), 2.0)
    assert dead.report(job.number, late), "it was not dead, and stops"
    dead.finish(job.number)
    assert states(alive)[job.number] == "lost"
    assert len({str(trial.params) for trial in finished(alive.study)}) == len(finished(alive.study)) == 4


@pytest.mark.parametrize("resumed", [False, True])
def test_a_duplicate_whose_worker_dies_before_withdrawing_it_is_not_resumed(
    make, clock, monkeypatch, resumed
):
    first, second, third = make(), make(), make()
    if resumed:
        first.report((job := first.next_job()).number, next(train(first.proxy, job, first.checkpoints)))
        first.requeue_running()
    seen = second._refresh()
    job = first.next_job()
    assert (job.resumed_from != ()) == resumed
    monkeypatch.setattr(second, "_refresh", lambda: seen)
    monkeypatch.setattr(second, "_start", lambda *_: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        second.next_job()
    for now in (0, 61, 125):
        clock.now = now
        first.heartbeat.beat()
        finish(third, third.next_job())
    assert states(first)[job.number : job.number + 2] == ["RUNNING", "withdrawn"]
    assert len({str(t.params) for t in finished(third.study)}) == len(finished(third.study)) == 3


def test_a_stale_trial_with_an_epoch_is_lost_even_if_the_finder_has_a_lower_target(make, clock):
    dead, modest = make(target=6), make(target=1)
    jobs = [dead.next_job() for _ in range(3)]
    for job in jobs:
        dead.report(job.number, next(train(dead.proxy, job, dead.checkpoints)))
    for now in (0, 61, 125):
        clock.now = now
        modest.next_job()
    assert states(dead)[:3] == ["lost"] * 3


def test_an_architecture_that_is_resumed_under_a_younger_number_is_not_started_again(make, clock):
    dead, slow, quick = make(first=()), make(first=()), make(first=())
    job = dead.next_job()
    spec = TrialSpec(slow.space.indices_of(job.architecture))
    late = slow._writer.create(spec)  # written by a worker that has read the study before
    pass_away(clock, quick)
    slow.heartbeat.beat()
    assert states(quick)[0] == "lost"
    assert quick.next_job().resumed_from == (job.number,)
    assert slow._start(late, spec) is None


def test_a_trial_whose_worker_dies_while_withdrawing_it_is_withdrawn(make, clock):
    dead, finder = make(first=()), make(first=())
    job = dead.next_job()
    identity = dead._running[job.number].trial._trial_id
    dead.study._storage.set_trial_user_attr(identity, "failure", "withdrawn")
    pass_away(clock, finder)
    assert states(finder) == ["withdrawn"]


def test_a_stale_trial_with_an_epoch_and_several_objectives_is_lost_too(tmp_path):
    study = optuna.create_study(directions=["maximize", "minimize"])
    given = {"objectives": ("accuracy", "macs"), "strategy": "random", "first": (), "study": study}
    dead, modest = (make_search(folder=tmp_path, proxy=StandIn(), **given) for _ in range(2))
    dead.begin(2, Silent())
    for job in [dead.next_job(), dead.next_job()]:
        dead.report(job.number, next(train(dead.proxy, job, dead.checkpoints)))
    modest.begin(1, Silent())
    modest._refresh()
    assert states(modest) == ["lost"] * 2


def test_an_error_with_micro_batches_is_retried_by_other_workers(make):
    first, second = make(first=("vanilla",)), make(first=("vanilla",))
    for failure in (Failure("out-of-memory", "no room"), Failure("error", "a bug", "traceback")):
        job = first.next_job()
        first.fail(job.number, failure)
    spec = second.scheduler.next_action(second.study.get_trials(), 6)
    assert spec.indices == second.space.indices_of(job.architecture)
    assert second._start(second._writer.create(spec), spec), "else it would be proposed again and again"


def test_a_checkpoint_that_cannot_be_deleted_is_ignored(make, monkeypatch):
    worker = make()

    def out_of_reach(self, number):
        raise InputError("the store is away")

    monkeypatch.setattr(Checkpoints, "drop", out_of_reach)
    finish(worker, worker.next_job())
    assert states(worker) == ["COMPLETE"]


def test_a_trial_with_heartbeats_is_never_stale(make, clock):
    busy, other = make(target=30), make(target=30)
    job = busy.next_job()
    for minute in range(20):
        clock.now = 60 * minute
        busy.heartbeat.beat()
        finish(other, other.next_job())
    assert states(other)[job.number] == "RUNNING"


def test_no_trial_is_stale_after_an_outage_of_the_storage(make, clock):
    busy, other = make(), make()
    job = busy.next_job()
    finish(other, other.next_job())
    clock.now = 3600  # no worker could write or read
    finish(other, other.next_job())
    busy.heartbeat.beat()
    clock.now = 3700
    finish(other, other.next_job())
    assert states(other)[job.number] == "RUNNING"


def test_of_two_workers_that_find_a_stale_trial_one_resumes_it(make, clock):
    dead, *alive = make(), make(), make()
    job = dead.next_job()
    for now in (0, 61, 125):
        clock.now = now
        running = [t for t in dead.study.get_trials() if t.state == TrialState.RUNNING]
        found = [worker.heartbeat.stale_trials(running) for worker in alive]
    assert [len(stale) for stale in found] == [1, 1]
    jobs = [worker.next_job() for worker in alive]
    assert sorted(one.resumed_from for one in jobs) == [(), (job.number,)]


def test_an_interrupted_trial_is_resumed_at_once_and_is_not_a_lost_attempt(make):
    leaving, other = make(retries=0), make(retries=0)
    job = leaving.next_job()
    leaving.report(job.number, next(train(leaving.proxy, job, leaving.checkpoints)))
    leaving.requeue_running()
    again = other.next_job()
    assert again.resumed_from == (job.number,)
    finish(other, again)
    assert "attempt" not in other.study.get_trials()[again.number].user_attrs


def test_a_trial_written_by_a_call_that_did_not_return_is_withdrawn(make):
    worker = make()
    spec = worker.scheduler.next_action(worker.study.get_trials(), 6)
    worker._writer.create(spec)  # and then the connection broke
    job = worker.next_job()
    assert states(worker) == ["withdrawn", "RUNNING"]
    assert job.architecture == worker.space.from_indices(spec.indices)


def test_a_checkpoint_that_cannot_be_written_stops_the_search_and_interrupts_the_trial(make):
    worker = make()
    job = worker.next_job()
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


def test_an_interrupted_trial_that_an_older_release_restarted_is_not_resumed(make):
    worker = make(first=())
    job = worker.next_job()
    indices = worker.space.indices_of(job.architecture)
    worker.requeue_running()
    assert len(to_resume(worker.study.get_trials())) == 1
    restarted = worker._writer.create(TrialSpec(indices))
    worker._writer.finish(restarted, TrialState.COMPLETE, 0.3)
    assert to_resume(worker.study.get_trials()) == []


def test_a_running_trial_with_a_failure_attribute_still_counts_as_running(make):
    busy, other = (make(pruner="halving", target=3, first=()) for _ in range(2))
    jobs = [busy.next_job() for _ in range(3)]
    for job in sorted(jobs, key=lambda job: -formula(job.architecture)):
        for step in train(busy.proxy, job, busy.checkpoints):
            if busy.report(job.number, step):
                break
        busy.finish(job.number)
    promoted = busy.next_job()
    assert promoted.resumed_from
    trial = busy._running[promoted.number].trial
    other.study._storage.set_trial_user_attr(trial._trial_id, "failure", "lost")  # and then it was killed
    assert other.next_job() is None
    assert not other.done, "it waits for the promoted trial"
    finish(busy, promoted)
    assert other.next_job() is None or other.reached


def test_a_search_is_not_done_while_it_trains(make):
    worker = make(target=1, first=())
    job = worker.next_job()
    worker._target = 0
    assert worker.next_job() is None
    assert not worker.done
    finish(worker, job)
    assert worker.next_job() is None
    assert worker.done


def test_an_interrupted_trial_that_was_paused_by_another_study_is_resumed_beyond_the_target(make):
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
    assert worker.next_job().resumed_from == (0,)
    worker.requeue_running()
    job = worker.next_job()
    assert job.resumed_from == (1, 0)
    finish(worker, job)
    assert worker.next_job() is None
    assert worker.reached
    assert states(worker) == ["PRUNED", "interrupted", "COMPLETE"]
