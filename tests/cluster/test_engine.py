"""Trainings on several nodes: each job runs once, within the slots, and is resumed when its node dies."""

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
pytestmark = [pytest.mark.usefixtures("alone_with_ray"), pytest.mark.timeout(300, func_only=True)]
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
class FakeSource:
    """Job source with a number of jobs that records all calls; `stops` are pairs of job number and epoch."""

    jobs: int
    epochs: int = 1
    stops: set = field(default_factory=set)
    on_report: object = None

    def __post_init__(self):
        self.waiting = [()] * self.jobs
        self.number = 0
        self.running = set()
        self.most = 0
        self.reports = []
        self.curves = {}
        self.ended = {}
        self.lost = {}
        self.attrs = []
        self.started = []

    def next_job(self):
        if not self.waiting:
            return None
        job = Job(self.number, ARCHITECTURE, resumed_from=self.waiting.pop(0))
        self.number += 1
        self.started.append(job)
        self.running.add(job.number)
        self.most = max(self.most, len(self.running))
        return job

    @property
    def done(self):
        return not self.waiting and not self.running

    def report(self, number, step):
        epoch = step.epoch
        self.reports.append((number, epoch.number))
        self.curves.setdefault(number, []).append(epoch)
        if self.on_report:
            self.on_report(number, epoch)
        return (number, epoch.number) in self.stops

    def finish(self, number, attrs):
        self.attrs.append(attrs)
        self.fail(number, self.curves[number])

    def fail(self, number, outcome):
        self.running.remove(number)
        self.ended[number] = outcome

    def mark_lost(self, number, message):
        self.running.remove(number)
        self.lost[number] = message
        self.waiting.append((number,))


def as_step(item):
    return Step(item, 1.0) if isinstance(item, Epoch) else item


def in_an_actor(folder, train):
    """Return what trains in an actor; each actor creates a file when it starts."""

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
    """Train until as many trainings run at once, minutes at most; the accuracy says how many there were."""

    def train(job, device):
        Path(folder, f"running-{job.number}").touch()
        until = time.monotonic() + 200
        while (running := len(list(Path(folder).glob("running-*")))) < count and time.monotonic() < until:
            time.sleep(0.05)
        yield Epoch(1, 0.5, running / 100)
        time.sleep(0.2)

    return train


@pytest.mark.parametrize(
    ("resources", "workers", "reached"),
    [
        pytest.param(Resources(cpus=1), None, 3, marks=pytest.mark.soak),
        (Resources(cpus=1), 2, 2),
        pytest.param(Resources(cpus=1, gpus=0.5), None, 2, marks=pytest.mark.soak),
    ],
)
def test_all_slots_are_used_and_actors_are_reused(cluster, tmp_path, resources, workers, reached):
    source = FakeSource(jobs=3 * reached)
    begin = in_an_actor(tmp_path, together(tmp_path, reached))
    run_on_ray(source, begin, resources, workers=workers)
    assert source.most == reached
    assert [ended[-1].accuracy >= reached / 100 for ended in source.ended.values()] == [True] * 3 * reached
    assert sorted(source.ended) == list(range(3 * reached))
    assert len(list(tmp_path.glob("actor-*"))) == reached
    devices = {attrs["device"] for attrs in source.attrs}
    assert devices == {"made up"} if resources.gpus else "threads" in devices.pop()


def test_a_node_has_slots_for_complete_trainings_only(monkeypatch):
    nodes = [
        {"Alive": True, "Resources": {"CPU": 7.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert Resources(cpus=1).slots() == 10
    assert Resources(cpus=2).slots() == 3 + 1
    assert Resources(cpus=1, gpus=0.4).slots() == 2 * 2  # no share lies across two
    assert Resources(cpus=1, gpus=0.1).slots() == 7
    assert Resources(cpus=2, gpus=1).slots() == 2
    assert Resources(cpus=2, gpus=2).slots() == 1


@pytest.mark.parametrize(
    "bad", [{"cpus": 0}, {"gpus": -0.5}, {"gpus": 1.5}, {"gpus": float("nan")}, {"gpus": 1e-5}]
)
def test_invalid_resources_are_refused_by_name(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Resources(**bad)


def test_resources_that_no_node_has_are_refused(cluster, tmp_path):
    with pytest.raises(InputError, match="no node of the cluster has 8 CPUs and 0 GPUs"):
        run_on_ray(FakeSource(jobs=1), in_an_actor(tmp_path, epochs(1)), Resources(cpus=8))


@pytest.mark.soak
def test_every_kind_of_end_reaches_the_source(cluster, tmp_path):
    def train(job, device):
        yield from epochs(2)(job, device)
        if job.number == 1:
            yield Failure("diverged", "the loss is inf")
        if job.number == 2:
            raise KeyError("lost my way")
        if job.number == 4:
            return
        yield from (Epoch(number, 0.5, number / 10) for number in (3, 4, 5))

    source = FakeSource(jobs=5, epochs=4, stops={(0, 3)})
    run_on_ray(source, in_an_actor(tmp_path, train), Resources(), workers=2)
    assert [epoch.number for epoch in source.ended[0]] == [1, 2, 3]
    assert source.ended[1] == Failure("diverged", "the loss is inf")
    assert source.ended[2].kind == "error"
    assert source.ended[2].message == "KeyError: 'lost my way'"
    assert 'raise KeyError("lost my way")' in source.ended[2].details
    assert [epoch.number for epoch in source.ended[3]] == [1, 2, 3, 4]
    assert [epoch.number for epoch in source.ended[4]] == [1, 2]
    assert len(list(tmp_path.glob("actor-*"))) <= 2
    assert (0, 4) not in source.reports


@pytest.mark.soak
def test_a_plugin_that_cannot_be_loaded_fails_each_training_and_kills_none(cluster, tmp_path):
    source = FakeSource(jobs=3)
    begin = in_an_actor(tmp_path, epochs(1))
    run_on_ray(source, begin, Resources(), workers=1, plugins=["no_such_module_of_operators"])
    assert not source.lost
    assert [ended.kind for ended in source.ended.values()] == ["error"] * 3
    assert "plugin: no_such_module_of_operators cannot be loaded" in source.ended[0].message


@pytest.mark.soak
def test_an_actor_that_cannot_be_created_is_an_error_and_not_lost(cluster, tmp_path):
    class Unreadable:
        def __reduce__(self):
            return (compile, ("1 +", "elsewhere", "eval"))  # as unpickling on another node may fail

    unreadable = Unreadable()
    source = FakeSource(jobs=1)
    run_on_ray(source, lambda device: unreadable, Resources(), workers=1)
    assert not source.lost
    assert source.ended[0].kind == "error"
    assert "SyntaxError" in source.ended[0].details


@pytest.mark.soak
def test_jobs_of_a_node_that_dies_are_resumed_elsewhere_and_a_node_that_joins_is_used(cluster, tmp_path):
    """The cluster's three slots are taken, a node with a fourth joins, and dies with its training."""
    with_more = []

    def join_and_die(number, epoch):
        if not with_more:
            with_more.append(cluster.add_node(num_cpus=1))
        if number == 3 and len(with_more) == 1:
            assert len(source.running) == 4
            with_more.append(None)
            cluster.remove_node(with_more[0], allow_graceful=False)

    source = FakeSource(jobs=4, epochs=1000, on_report=join_and_die)

    def train(job, device):
        for number in range(1, 1001):
            time.sleep(0.1)
            if job.resumed_from or Path(tmp_path, "lost").exists():
                number = 1000
            yield Epoch(number, 0.5, 0.1)

    mark_lost = source.mark_lost

    def touch_and_mark_lost(number, message):
        Path(tmp_path, "lost").touch()
        mark_lost(number, message)

    source.mark_lost = touch_and_mark_lost
    run_on_ray(source, in_an_actor(tmp_path, train), Resources())
    assert list(source.lost) == [3]
    assert [job.resumed_from for job in source.started] == [(), (), (), (), (3,)]
    assert sorted(source.ended) == [0, 1, 2, 4]


def test_the_job_of_an_actor_that_dies_is_lost(cluster, tmp_path):
    def train(job, device):
        yield Epoch(1, 0.5, 0.1)
        if not job.resumed_from:
            os._exit(1)
        yield Epoch(2, 0.5, 0.2)

    source = FakeSource(jobs=1, epochs=2)
    run_on_ray(source, in_an_actor(tmp_path, train), Resources())
    assert list(source.lost) == [0]
    assert "\n" not in source.lost[0]
    assert [epoch.number for epoch in source.ended[1]] == [1, 2]


def heartbeat(folder):
    """Return what trains without end, and writes the time to a file as it does."""

    def train(job, device):
        yield Epoch(1, 0.5, 0.1)
        while True:
            Path(folder, f"beat-{job.number}").write_text(str(time.monotonic()))
            time.sleep(0.05)

    return train


def still(folder, seconds=60):
    """Whether all trainings have stopped; stopping an actor takes a moment."""
    until = time.monotonic() + seconds
    before, now = None, beats(folder)
    while before != now and time.monotonic() < until:
        time.sleep(0.5)
        before, now = now, beats(folder)
    return bool(now) and before == now


def beats(folder):
    return [path.read_text() for path in sorted(Path(folder).glob("beat-*"))]


@pytest.mark.parametrize(
    ("name", "jobs"),
    [
        ("next_job", 1),
        *(pytest.param(name, 2, marks=pytest.mark.soak) for name in ("next_job", "report", "finish")),
    ],
)
def test_an_error_of_the_source_reaches_the_caller_unchanged_and_stops_all(cluster, tmp_path, name, jobs):
    source = FakeSource(jobs=jobs, epochs=2)
    error = StopSearch("enough is enough")

    method = getattr(source, name)

    def enough(*arguments):
        if Path(tmp_path, "beat-0").exists():
            raise error
        return method(*arguments)

    def train(job, device):
        if job.number == 1:
            while not Path(tmp_path, "beat-0").exists():
                time.sleep(0.05)
            yield Epoch(2, 0.5, 0.1)
        yield from heartbeat(tmp_path)(job, device)

    setattr(source, name, enough)
    with pytest.raises(StopSearch) as raised:
        run_on_ray(source, in_an_actor(tmp_path, train), Resources(), workers=3)
    assert raised.value is error
    assert still(tmp_path)


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_an_interrupt_reaches_the_caller_and_stops_all_actors(cluster, tmp_path, jobs):
    before = signal.getsignal(signal.SIGINT)

    def press():
        until = time.monotonic() + 200
        while len(list(tmp_path.glob("beat-*"))) < jobs and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    begin = in_an_actor(tmp_path, heartbeat(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        run_on_ray(FakeSource(jobs=jobs, epochs=2), begin, Resources(), workers=jobs)
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
    assert not [path for path in files if token.encode() in path.read_bytes()], "the token is in a file"
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


def test_a_local_cluster_has_a_token_that_no_file_holds_and_leaves_sigterm_alone(tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", LOCAL, "postgresql://me:s3cret@host/studies"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout) == (0, "1 node\ninterrupted\n"), ran.stderr


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://127.0.0.1:10001", "client protocol"),
        ("somewhere", "'somewhere' is not local, auto or HOST:PORT"),
        ("127.0.0.1:1", "nothing answers at 127.0.0.1:1"),
    ],
)
@pytest.mark.parametrize("variable", [False, True])
def test_an_unusable_address_is_refused_at_once(monkeypatch, address, message, variable):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    if variable:
        monkeypatch.setenv("RAY_ADDRESS", address)
        address = "auto"
    with pytest.raises(InputError, match=message) as raised, connect(address):
        pass
    assert "\n" not in str(raised.value)
