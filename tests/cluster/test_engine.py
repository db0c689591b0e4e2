"""Trainings on several nodes: each job once, as many at once as asked, and none lost with its node."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import ray
from ray import cloudpickle
from ray.cluster_utils import Cluster

from nas_recalib.architecture import Architecture
from nas_recalib.cluster import Resources, connect, run_on_ray
from nas_recalib.errors import InputError, StopSearch
from nas_recalib.proxy.objective import Failure
from nas_recalib.proxy.train import Epoch
from nas_recalib.search.job import Job, Step

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors need not find this file

ARCHITECTURE = Architecture.of("resnet20", "vanilla")
TWO_NODES = (1, 2)  # cores of the nodes, the second of which has a GPU


@pytest.fixture(scope="module")
def cluster():
    cluster = Cluster()
    cluster.add_node(num_cpus=TWO_NODES[0], include_dashboard=False)
    cluster.add_node(num_cpus=TWO_NODES[1], num_gpus=1)
    with connect(cluster.address):
        yield cluster
    cluster.shutdown()


@dataclass
class Fake:
    """Hands out so many jobs, and remembers everything; `stops` are numbers and epochs."""

    jobs: int
    epochs: int = 1
    stops: set = field(default_factory=set)
    on_report: object = None

    def __post_init__(self):
        self.waiting = [()] * self.jobs
        self.number = 0
        self.out = set()
        self.most = 0
        self.reports = []
        self.curves = {}
        self.ended = {}
        self.lost = {}
        self.common_attrs = []
        self.given = []

    def next(self):
        if not self.waiting:
            return None
        after = self.waiting.pop(0)
        job = Job(self.number, ARCHITECTURE, after)
        self.number += 1
        self.given.append(job)
        self.out.add(job.number)
        self.most = max(self.most, len(self.out))
        return job

    @property
    def done(self):
        return not self.waiting and not self.out

    def report(self, number, step):
        epoch = step.epoch
        self.reports.append((number, epoch.number))
        self.curves.setdefault(number, []).append(epoch)
        if self.on_report:
            self.on_report(number, epoch)
        return (number, epoch.number) in self.stops

    def end(self, number, common_attrs):
        self.common_attrs.append(common_attrs)
        self.fail(number, self.curves[number])

    def fail(self, number, outcome):
        self.out.remove(number)
        self.ended[number] = outcome

    def lose(self, number, message):
        self.out.remove(number)
        self.lost[number] = message
        self.waiting.append((number,))


def as_step(item):
    return Step(item, 1.0) if isinstance(item, Epoch) else item


def in_an_actor(folder, train):
    """What trains; an actor leaves a file when it comes to be."""

    def begin(device):
        import torch

        torch.cuda.get_device_name = lambda device: "made up"
        Path(folder, f"actor-{os.getpid()}").touch()
        return lambda job: (as_step(item) for item in train(job, device))

    return begin


def epochs(count, seconds=0.0):
    def train(job, device):
        for number in range(1, count + 1):
            time.sleep(seconds)
            yield Epoch(number, 0.5, number / 10)

    return train


def together(folder, count):
    """Waits for so many trainings to be under way, a minute at most; accuracies say how many there were."""

    def train(job, device):
        Path(folder, f"running-{job.number}").touch()
        until = time.monotonic() + 60
        while (running := len(list(Path(folder).glob("running-*")))) < count and time.monotonic() < until:
            time.sleep(0.05)
        yield Epoch(1, 0.5, running / 100)
        time.sleep(0.2)

    return train


@pytest.mark.parametrize(
    ("resources", "workers", "reached"),
    [
        (Resources(cpus=1), None, 3),
        (Resources(cpus=1), 2, 2),
        (Resources(cpus=1, gpus=0.5), None, 2),
    ],
)
def test_as_many_as_asked_run_at_once_in_actors_that_are_used_again(
    cluster, tmp_path, resources, workers, reached
):
    desk = Fake(jobs=3 * reached)
    begin = in_an_actor(tmp_path, together(tmp_path, reached))
    run_on_ray(desk, begin, resources, workers=workers)
    assert desk.most == reached
    assert [ended[-1].accuracy >= reached / 100 for ended in desk.ended.values()] == [True] * 3 * reached
    assert sorted(desk.ended) == list(range(3 * reached))
    assert len(list(tmp_path.glob("actor-*"))) == reached
    where = {fact["device"] for fact in desk.common_attrs}
    assert where == {"made up"} if resources.gpus else "threads" in where.pop()


def test_a_node_has_room_for_whole_trainings_only(monkeypatch):
    nodes = [
        {"Alive": True, "Resources": {"CPU": 7.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert Resources(cpus=1).places() == 10
    assert Resources(cpus=2).places() == 3 + 1
    assert Resources(cpus=1, gpus=0.4).places() == 2 * 2  # no share lies across two
    assert Resources(cpus=1, gpus=0.1).places() == 7
    assert Resources(cpus=2, gpus=1).places() == 2
    assert Resources(cpus=2, gpus=2).places() == 1


@pytest.mark.parametrize(
    "bad", [{"cpus": 0}, {"gpus": -0.5}, {"gpus": 1.5}, {"gpus": float("nan")}, {"gpus": 1e-5}]
)
def test_resources_that_cannot_be_are_refused_by_name(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Resources(**bad)


def test_what_no_node_has_is_refused(cluster, tmp_path):
    with pytest.raises(InputError, match="no node of the cluster has 8 CPUs and 0 GPUs"):
        run_on_ray(Fake(jobs=1), in_an_actor(tmp_path, epochs(1)), Resources(cpus=8))


def test_ends_of_every_kind_reach_the_desk(cluster, tmp_path):
    def train(job, device):
        yield from epochs(2)(job, device)
        if job.number == 1:
            yield Failure("diverged", "the loss is inf")
        if job.number == 2:
            raise KeyError("lost my way")
        if job.number == 4:
            return
        yield from (Epoch(number, 0.5, number / 10) for number in (3, 4, 5))

    desk = Fake(jobs=5, epochs=4, stops={(0, 3)})
    run_on_ray(desk, in_an_actor(tmp_path, train), Resources(), workers=2)
    assert [epoch.number for epoch in desk.ended[0]] == [1, 2, 3]
    assert desk.ended[1] == Failure("diverged", "the loss is inf")
    assert desk.ended[2].kind == "error"
    assert desk.ended[2].message == "KeyError: 'lost my way'"
    assert 'raise KeyError("lost my way")' in desk.ended[2].details
    assert [epoch.number for epoch in desk.ended[3]] == [1, 2, 3, 4]
    assert [epoch.number for epoch in desk.ended[4]] == [1, 2]
    assert len(list(tmp_path.glob("actor-*"))) <= 2
    assert (0, 4) not in desk.reports


def test_a_plugin_that_cannot_be_loaded_fails_each_training_and_kills_none(cluster, tmp_path):
    desk = Fake(jobs=3)
    begin = in_an_actor(tmp_path, epochs(1))
    run_on_ray(desk, begin, Resources(), workers=1, plugins=["no_such_module_of_operators"])
    assert not desk.lost
    assert [ended.kind for ended in desk.ended.values()] == ["error"] * 3
    assert "plugin: no_such_module_of_operators cannot be loaded" in desk.ended[0].message


def test_an_actor_that_cannot_be_made_is_an_error_and_no_loss(cluster, tmp_path):
    class Unreadable:
        def __reduce__(self):
            return (compile, ("1 +", "elsewhere", "eval"))  # what unpickling on another node may come to

    unreadable = Unreadable()
    desk = Fake(jobs=1)
    run_on_ray(desk, lambda device: unreadable, Resources(), workers=1)
    assert not desk.lost
    assert desk.ended[0].kind == "error"
    assert "SyntaxError" in desk.ended[0].details


def test_jobs_of_a_node_that_dies_go_on_elsewhere_and_a_node_that_joins_is_used(cluster, tmp_path):
    """The cluster's three places are taken, a fourth joins, and it dies with what it was doing."""
    with_more = []

    def join_and_die(number, epoch):
        if not with_more:
            with_more.append(cluster.add_node(num_cpus=1))
        if number == 3 and len(with_more) == 1:
            assert len(desk.out) == 4
            with_more.append(None)
            cluster.remove_node(with_more[0], allow_graceful=False)

    desk = Fake(jobs=4, epochs=1000, on_report=join_and_die)

    def train(job, device):
        for number in range(1, 1001):
            time.sleep(0.1)
            if job.after or Path(tmp_path, "lost").exists():
                number = 1000
            yield Epoch(number, 0.5, 0.1)

    lose = desk.lose

    def lost(number, message):
        Path(tmp_path, "lost").touch()
        lose(number, message)

    desk.lose = lost
    run_on_ray(desk, in_an_actor(tmp_path, train), Resources())
    assert list(desk.lost) == [3]
    assert [job.after for job in desk.given] == [(), (), (), (), (3,)]
    assert sorted(desk.ended) == [0, 1, 2, 4]


def test_an_actor_that_dies_is_a_loss(cluster, tmp_path):
    def train(job, device):
        yield Epoch(1, 0.5, 0.1)
        if not job.after:
            os._exit(1)
        yield Epoch(2, 0.5, 0.2)

    desk = Fake(jobs=1, epochs=2)
    run_on_ray(desk, in_an_actor(tmp_path, train), Resources())
    assert list(desk.lost) == [0]
    assert "\n" not in desk.lost[0]
    assert [epoch.number for epoch in desk.ended[1]] == [1, 2]


def heartbeat(folder):
    """Trains for as long as it is let, and leaves a sign of it."""

    def train(job, device):
        yield Epoch(1, 0.5, 0.1)
        while True:
            Path(folder, f"beat-{job.number}").write_text(str(time.monotonic()))
            time.sleep(0.05)

    return train


def still(folder, seconds=20):
    """Whether no training gives a sign any more; to end an actor takes a moment."""
    until = time.monotonic() + seconds
    before, now = None, beats(folder)
    while before != now and time.monotonic() < until:
        time.sleep(0.5)
        before, now = now, beats(folder)
    return bool(now) and before == now


def beats(folder):
    return [path.read_text() for path in sorted(Path(folder).glob("beat-*"))]


@pytest.mark.parametrize("where", ["next", "report", "end"])
def test_what_the_desk_raises_reaches_the_caller_as_it_is_and_ends_all(cluster, tmp_path, where):
    desk = Fake(jobs=2, epochs=2)
    error = StopSearch("enough is enough")

    told = getattr(desk, where)

    def enough(*arguments):
        if Path(tmp_path, "beat-0").exists():
            raise error
        return told(*arguments)

    def train(job, device):
        if job.number == 1:
            while not Path(tmp_path, "beat-0").exists():
                time.sleep(0.05)
            yield Epoch(2, 0.5, 0.1)
        yield from heartbeat(tmp_path)(job, device)

    setattr(desk, where, enough)
    with pytest.raises(StopSearch) as raised:
        run_on_ray(desk, in_an_actor(tmp_path, train), Resources(), workers=3)
    assert raised.value is error
    assert still(tmp_path)


def test_an_interrupt_reaches_the_caller_and_no_actor_goes_on(cluster, tmp_path):
    before = signal.getsignal(signal.SIGINT)

    def press():
        until = time.monotonic() + 60
        while len(list(tmp_path.glob("beat-*"))) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    pressed = []
    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_on_ray(Fake(jobs=2, epochs=2), in_an_actor(tmp_path, heartbeat(tmp_path)), Resources(), workers=2)
    assert time.monotonic() - pressed[0] < 5
    assert still(tmp_path)
    assert signal.getsignal(signal.SIGINT) == before
    assert not [name for name in os.environ if name.startswith("TUNE_")]


LOCAL = """
import os, pathlib, ray, signal, time
from nas_recalib.cluster import connect
signal.signal(signal.SIGTERM, signal.default_int_handler)
with connect("local"):
    token = os.environ["RAY_AUTH_TOKEN"]
    session = pathlib.Path(ray._private.worker._global_node.get_session_dir_path())
    files = [path for path in (*session.rglob("*"), *pathlib.Path.home().rglob("*")) if path.is_file()]
    assert not [path for path in files if token.encode() in path.read_bytes()], "written down"
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert "s3cret" not in str(ray._private.state.jobs())
    print(len(ray.nodes()), "node")
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    except KeyboardInterrupt:
        print("interrupted")
assert not {"RAY_AUTH_TOKEN", "RAY_AUTH_MODE"} & os.environ.keys()
assert not ray.is_initialized()
"""


def test_a_cluster_of_ones_own_has_a_token_that_no_file_holds_and_leaves_sigterm_alone(tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", LOCAL, "postgresql://me:s3cret@host/studies"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout) == (0, "1 node\ninterrupted\n"), ran.stderr


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://127.0.0.1:10001", "client protocol"),
        ("somewhere", "'somewhere' is not local, auto or HOST:PORT"),
        ("127.0.0.1:1", "nothing answers at 127.0.0.1:1"),
    ],
)
@pytest.mark.parametrize("variable", [False, True])
def test_an_address_of_no_use_is_refused_at_once(monkeypatch, address, said, variable):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    if variable:
        monkeypatch.setenv("RAY_ADDRESS", address)
        address = "auto"
    with pytest.raises(InputError, match=said) as raised, connect(address):
        pass
    assert "\n" not in str(raised.value)
