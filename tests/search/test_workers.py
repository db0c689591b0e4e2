"""Several workers on one study, in one process: who does what is decided by the study alone."""

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from stand_in import SPACE, Silent, StandIn, all_architectures, formula, make_search

from nas_recalib.costs import Budget
from nas_recalib.errors import InputError, StopSearch
from nas_recalib.proxy.objective import Failure
from nas_recalib.proxy.train import Epoch
from nas_recalib.search.checkpoints import Checkpoints
from nas_recalib.search.job import Step, train
from nas_recalib.search.ledger import Draft
from nas_recalib.search.lives import Beating
from nas_recalib.search.local import run_here
from nas_recalib.search.samplers.from_optuna import distributions
from nas_recalib.space import SearchSpace
from nas_recalib.study.trials import finished, owed
from nas_recalib.study.workers import enrolled, surely_dead


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(tmp_path, clock):
    """Makes workers on one study; none beats but by hand."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(storage=url, study_name="s", direction="maximize")

    def worker(goal=6, **given):
        study = optuna.load_study(study_name="s", storage=url)
        lives = Beating(study._storage, tmp_path, now=clock)
        search = make_search(
            study, tmp_path, given.pop("proxy", StandIn()), shared=True, lives=lives, **given
        )
        search.begin(goal, Silent())
        return search

    return worker


def finish(search, job):
    for step in train(search.proxy, job, search.checkpoints):
        search.report(job.number, step)
    search.end(job.number)


def states(search):
    return [trial.user_attrs.get("failure", trial.state.name) for trial in search.study.get_trials()]


def die(*_, **__):
    raise SystemExit


def pass_away(clock, finder):
    """As long as it takes until the dead are buried."""
    for now in (0, 61, 125):
        clock.now += now
        finder._look()


def test_no_two_train_the_same_and_none_begins_more_than_asked(make):
    workers = [make(goal=7, strategy="random") for _ in range(4)]
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
    first, second = make(goal=1, first=()), make(goal=1, first=())
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
        first.give_back()
    seen = second._look()
    job = first.next()
    assert (job.after != ()) == on
    monkeypatch.setattr(second, "_look", lambda: seen)
    monkeypatch.setattr(second, "_take", lambda *_: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        second.next()
    for now in (0, 61, 125):
        clock.now = now
        first.lives.sign()
        finish(third, third.next())
    assert states(first)[job.number : job.number + 2] == ["RUNNING", "withdrawn"]
    assert len({str(t.params) for t in finished(third.study)}) == len(finished(third.study)) == 3


def test_what_has_told_an_epoch_is_gone_on_with_whatever_the_one_who_finds_it_wants(make, clock):
    dead, modest = make(goal=6), make(goal=1)
    jobs = [dead.next() for _ in range(3)]
    for job in jobs:
        dead.report(job.number, next(train(dead.proxy, job, dead.checkpoints)))
    for now in (0, 61, 125):
        clock.now = now
        modest.next()
    assert states(dead)[:3] == ["lost"] * 3


def test_an_enqueued_trial_whose_worker_dies_before_it_saw_a_younger_one_is_not_trained_twice(
    make, clock, monkeypatch
):
    first, second, third = make(), make(), make()
    picks = second.plan.next(second.study.get_trials(), 6).picks
    second.study.enqueue_trial(first.space.parameters(picks))
    monkeypatch.setattr(second, "_take", die)
    with pytest.raises(SystemExit):
        second.next()
    first._ledger.begin(first.plan.by_hand(picks))  # by one that looked before it was enqueued
    for now in (0, 61, 125):
        clock.now = now
        third.lives.dead([t for t in third.study.get_trials() if t.state == TrialState.RUNNING])
    third._look()
    assert states(third)[0] == "withdrawn"


def test_what_was_begun_earlier_is_not_begun_again_while_it_goes_on_under_a_younger_number(make, clock):
    dead, slow, quick = make(first=()), make(first=()), make(first=())
    job = dead.next()
    draft = Draft(slow.space.picks(job.architecture))
    late = slow._ledger.begin(draft)  # written by one that looked before
    pass_away(clock, quick)
    slow.lives.sign()
    assert states(quick)[0] == "lost"
    assert quick.next().after == (job.number,)
    assert slow._take(late, draft) is None


def test_who_dies_while_it_withdraws_has_withdrawn(make, clock):
    dead, finder = make(first=()), make(first=())
    job = dead.next()
    identity = dead._running[job.number].trial._trial_id
    dead.study._storage.set_trial_user_attr(identity, "failure", "withdrawn")
    pass_away(clock, finder)
    assert states(finder) == ["withdrawn"]


def test_an_enqueued_trial_that_another_reads_first_leaves_no_trial_behind(make, monkeypatch):
    slow, quick = make(first=()), make(first=())
    quick.study.enqueue_trial(quick.space.parameters(quick.plan.next([], 6).picks))
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
    worker.study.enqueue_trial(worker.space.parameters(worker.space.picks(job.architecture)))
    assert worker.next().architecture != job.architecture
    assert "replayed_from" in worker.study.get_trials()[2].user_attrs


def test_an_enqueued_trial_whose_worker_dies_before_it_read_it_is_enqueued_anew(make, clock, monkeypatch):
    hasty, other = make(goal=2), make(goal=2)
    wish = other.space.parameters(other.plan.next(other.study.get_trials(), 2).picks)
    other.study.enqueue_trial(wish)
    monkeypatch.setattr(hasty.plan, "by_hand", die)
    with pytest.raises(SystemExit):
        hasty.next()
    for now in (0, 61, 125):
        clock.now = now
        other._look()
    assert states(other) == ["lost", "WAITING"]
    assert other.space.parameters(other.space.picks(other.next().architecture)) == wish


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


def test_of_an_enqueued_and_a_younger_trial_that_both_withdraw_one_is_trained(make, monkeypatch):
    first, second, third = (make(goal=2, strategy="random", first=()) for _ in range(3))
    picks = first.space.picks(all_architectures(first.space)[0])
    first.study.enqueue_trial(first.space.parameters(picks))
    draft, by_hand = Draft(picks), first.plan.by_hand
    late = []

    def meanwhile(picks):
        late.append(second._ledger.begin(draft))
        seen = second.study.get_trials()
        monkeypatch.setattr(second, "_trials", lambda: seen)
        return by_hand(picks)

    monkeypatch.setattr(first.plan, "by_hand", meanwhile)
    assert first._take_enqueued() is None
    assert second._take(late[0], draft) is None
    assert states(third) == ["withdrawn"] * 2
    assert third.space.picks(third.next().architecture) == picks


def test_an_enqueued_trial_that_there_was_no_room_for_is_trained_where_there_is_more(make, monkeypatch):
    first, second, later = make(goal=1, first=()), make(goal=1, first=()), make(goal=2, first=())
    wishes = [first.space.parameters(first.space.picks(one)) for one in all_architectures(first.space)[:2]]
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
    monkeypatch.setattr(dead, "_setback", die)
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
    picks = (0, 0, 0)
    dead, finder = (make_search(study, tmp_path, StandIn(), first=()) for _ in range(2))
    dead.begin(3, Silent())
    broken = dead._take(dead._ledger.begin(Draft(picks)), Draft(picks))
    dead.fail(broken.number, Failure("error", "a bug", "traceback"))
    study.enqueue_trial(dead.space.parameters(picks))
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
    wish = dead.space.parameters((1, 1, 1))
    study.enqueue_trial(wish, **added)
    put_back(dead, finder, monkeypatch)
    assert study.get_trials()[1].user_attrs == added.get("user_attrs", {})
    assert finder.space.encode(finder.next().architecture) == wish


def test_an_enqueued_trial_that_looks_like_a_searchs_own_is_dropped_even_by_who_dies(make, clock):
    dead, other = make(), make()
    wish = dead.space.parameters((1, 1, 1))
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
    wish = dead.space.parameters((1, 1, 1))
    kinds = distributions(dead.space)
    study.add_trial(create_trial(state=TrialState.WAITING, params=wish, distributions=kinds))
    put_back(dead, finder, monkeypatch)
    assert finder.space.encode(finder.next().architecture) == wish


def put_back(dead, finder, monkeypatch):
    dead.begin(3, Silent())
    monkeypatch.setattr(dead.plan, "by_hand", die)
    with pytest.raises(SystemExit):
        dead.next()
    finder.begin(3, Silent())
    finder._look()
    assert states(finder) == ["lost", "WAITING"]


def test_a_waiting_trial_without_wishes_is_not_what_a_younger_one_is(make, monkeypatch):
    first, second = make(first=()), make(first=())
    first.study.add_trial(create_trial(state=TrialState.WAITING))
    by_hand = first.plan.by_hand

    def meanwhile(picks):
        second._ledger.begin(Draft(picks))  # by one that looked before
        return by_hand(picks)

    monkeypatch.setattr(first.plan, "by_hand", meanwhile)
    assert first._take_enqueued() is None
    assert states(first) == ["withdrawn", "RUNNING"]


def test_what_failed_by_a_bug_with_half_batches_is_tried_again_by_others(make):
    first, second = make(first=("vanilla",)), make(first=("vanilla",))
    for failure in (Failure("out-of-memory", "no room"), Failure("error", "a bug", "traceback")):
        job = first.next()
        first.fail(job.number, failure)
    draft = second.plan.next(second.study.get_trials(), 6)
    assert draft.picks == second.space.picks(job.architecture)
    assert second._take(second._ledger.begin(draft), draft), "else it would be proposed again for ever"


def test_a_checkpoint_that_cannot_be_deleted_ends_nothing(make, monkeypatch):
    worker = make()

    def out_of_reach(self, number):
        raise InputError("the store is away")

    monkeypatch.setattr(Checkpoints, "drop", out_of_reach)
    finish(worker, worker.next())
    assert states(worker) == ["COMPLETE"]


def test_a_worker_that_gives_signs_of_life_is_never_buried(make, clock):
    busy, other = make(goal=30), make(goal=30)
    job = busy.next()
    for minute in range(20):
        clock.now = 60 * minute
        busy.lives.sign()
        finish(other, other.next())
    assert states(other)[job.number] == "RUNNING"


def test_nobody_dies_of_a_time_without_storage(make, clock):
    busy, other = make(), make()
    job = busy.next()
    finish(other, other.next())
    clock.now = 3600  # nobody could write, nobody could look
    finish(other, other.next())
    busy.lives.sign()
    clock.now = 3700
    finish(other, other.next())
    assert states(other)[job.number] == "RUNNING"


def test_of_two_that_find_the_same_dead_one_goes_on(make, clock):
    dead, *alive = make(), make(), make()
    job = dead.next()
    for now in (0, 61, 125):
        clock.now = now
        running = [t for t in dead.study.get_trials() if t.state == TrialState.RUNNING]
        found = [worker.lives.dead(running) for worker in alive]
    assert [len(some) for some in found] == [1, 1]
    jobs = [worker.next() for worker in alive]
    assert sorted(one.after for one in jobs) == [(), (job.number,)]


def test_what_is_given_back_is_gone_on_with_at_once_and_does_not_count_as_a_death(make):
    leaving, other = make(retries=0), make(retries=0)
    job = leaving.next()
    leaving.report(job.number, next(train(leaving.proxy, job, leaving.checkpoints)))
    leaving.give_back()
    again = other.next()
    assert again.after == (job.number,)
    finish(other, again)
    assert "attempt" not in other.study.get_trials()[again.number].user_attrs


def test_a_trial_written_by_a_call_that_broke_off_is_withdrawn(make):
    worker = make()
    draft = worker.plan.next(worker.study.get_trials(), 6)
    worker._ledger.begin(draft)  # and then the connection broke
    job = worker.next()
    assert states(worker) == ["withdrawn", "RUNNING"]
    assert job.architecture == worker.space.at(draft.picks)


def test_a_checkpoint_that_cannot_be_kept_stops_the_search_and_gives_the_trial_back(make):
    worker = make()
    job = worker.next()
    with pytest.raises(StopSearch, match="no room"):
        worker.fail(job.number, Failure("checkpoint", "no room"))
    assert states(worker) == ["interrupted"]


def test_a_worker_of_this_machine_is_known_to_have_ended_at_once(tmp_path):
    with enrolled(tmp_path, alone=False) as worker, enrolled(tmp_path, alone=False) as other:
        assert worker != other
        assert not surely_dead(tmp_path, worker)
        lock = tmp_path / "workers" / f"{worker.partition('/')[2]}.lock"
        content = lock.read_text()
    lock.write_text(content)  # as a killed process leaves it
    assert surely_dead(tmp_path, worker)
    lock.write_text("another machine")
    assert not surely_dead(tmp_path, worker)
    assert not surely_dead(tmp_path, "nobody/0000")
    assert not surely_dead(tmp_path, "x/../../etc/passwd")


def test_what_an_older_release_trained_anew_is_not_gone_on_with(make):
    worker = make(first=())
    job = worker.next()
    picks = worker.space.picks(job.architecture)
    worker.give_back()
    assert len(owed(worker.study.get_trials())) == 1
    anew = worker._ledger.begin(Draft(picks))
    worker._ledger.end(anew, TrialState.COMPLETE, [0.1, 0.2, 0.3])
    assert owed(worker.study.get_trials()) == []


def test_a_trial_that_was_only_about_to_be_buried_still_holds_its_place(make):
    busy, other = (make(pruner="halving", goal=3, first=()) for _ in range(2))
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


def test_what_is_enqueued_while_it_is_trained_is_not_trained_twice_by_one_that_is_alone(tmp_path):
    search = make_search(optuna.create_study(direction="maximize"), tmp_path, StandIn())
    search.begin(5, Silent())
    job = search.next()
    for _ in range(2):
        search.study.enqueue_trial(search.space.parameters(search.space.picks(job.architecture)))
    assert search.next().architecture != job.architecture
    assert states(search) == ["RUNNING", "withdrawn", "withdrawn", "RUNNING"]


def test_a_search_is_not_done_while_it_trains(make):
    worker = make(goal=1, first=())
    job = worker.next()
    worker._goal = 0
    assert worker.next() is None
    assert not worker.done
    finish(worker, job)
    assert worker.next() is None
    assert worker.done


def test_what_another_study_left_and_this_one_broke_off_is_gone_on_with_after_the_goal(make):
    worker = make(goal=0, pruner="halving")
    picks = worker.space.picks(all_architectures(worker.space)[0])
    worker.study.add_trial(
        create_trial(
            state=TrialState.PRUNED,
            value=0.5,
            params=worker.space.parameters(picks),
            distributions=distributions(worker.space),
            user_attrs={"taken_from": "other/0", "architecture": str(worker.space.at(picks))},
            intermediate_values={1: 0.5},
        )
    )
    assert worker.next().after == (0,)
    worker.give_back()
    job = worker.next()
    assert job.after == (1, 0)
    finish(worker, job)
    assert worker.next() is None
    assert worker.reached
    assert states(worker) == ["PRUNED", "interrupted", "COMPLETE"]
