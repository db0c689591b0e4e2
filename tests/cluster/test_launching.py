"""The files under docs/clusters that start searches: for Ray's launcher, Kubernetes and Slurm."""

import os
import re
import shlex
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

CLUSTERS = Path(__file__).parents[2] / "docs" / "clusters"
BATCH = CLUSTERS / "search.sbatch"


def test_the_configuration_for_ray_up_is_valid():
    given = yaml.safe_load((CLUSTERS / "ray-on-premise.yaml").read_text())
    config = prepare_config(given)
    validate_config(config)
    assert config["max_workers"] == len(given["provider"]["worker_ips"])
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in commands[-1]


def test_the_kubernetes_manifest_is_complete():
    manifest = yaml.safe_load_all((CLUSTERS / "rayjob.yaml").read_text())
    made = {one["kind"]: one for one in manifest}
    job = made["RayJob"]["spec"]
    cluster = job["rayClusterSpec"]
    assert made["RayJob"]["apiVersion"] == "ray.io/v1"
    assert set(job) <= {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "rayClusterSpec"}
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (group,) = cluster["workerGroupSpecs"]
    assert 1 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    asked = dict(zip(shlex.split(job["entrypoint"])[2::2], shlex.split(job["entrypoint"])[3::2], strict=True))
    assert int(asked["--workers"]) == group["maxReplicas"]
    images = set()
    for pod in (cluster["headGroupSpec"]["template"]["spec"], group["template"]["spec"]):
        claims = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]}
        assert set(claims.values()) == {made["PersistentVolumeClaim"]["metadata"]["name"]}
        (container,) = pod["containers"]
        images.add(container["image"])
        (place,) = (mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in claims)
        assert asked["--checkpoints"].startswith(f"{place}/")
        assert not [variable for variable in container.get("env", ()) if "value" in variable]
    assert len(images) == 1, "every node has the same program"


def test_the_batch_file_has_no_syntax_errors():
    checked = subprocess.run(["bash", "-n", str(BATCH)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


STAND_INS = {  # a node lives until it is told to end, and so does a search, which calls that an interruption
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "ray": """
        [ "$1" = start ] || { until [ -s nodes ]; do sleep 0.01; done; exit 0; }
        sleep 60 &
        trap 'kill $!; echo ended >>nodes; exit 0' TERM
        echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN $*" >>nodes
        wait""",
    "python": '[ "$(grep -c token nodes)" -ge "${@: -1}" ]',
    "nas-recalib": """
        echo "$*" >>searches
        [ ! -f ends ] || exit "$(cat ends)"
        sleep 60 &
        trap 'kill $!; exit 130' TERM
        touch searching
        wait""",
    "scontrol": 'echo "$*" >>asked',
}


@pytest.fixture
def job(tmp_path):
    """Starts the batch file with stand-ins for what it calls, in a folder of its own."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in STAND_INS.items():
        program = programs / name
        program.write_text(f"#!/bin/bash\n{text}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    told = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_CPUS_PER_TASK": "2",
        "SLURMD_NODENAME": "first",
        "HEAD_IP": "192.0.2.1",
    }
    command = ["bash", str(BATCH), "--space", "my space.yaml", "--trials", "9"]
    started = []

    def start(nodes="2"):  # a step of all others is one process here
        with (tmp_path / "log").open("w") as log:
            environment = {**os.environ, **told, "SLURM_JOB_NUM_NODES": nodes}
            started.append(
                subprocess.Popen(
                    command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
                )
            )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def test_a_job_that_must_stop_ends_the_search_and_is_requeued(job, tmp_path):
    process = job()
    until = time.monotonic() + 60
    while not (tmp_path / "searching").exists():
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)  # to the batch shell alone, as B: has it
    assert process.wait(30) == 130
    assert lines(tmp_path / "asked") == ["requeue 7"]
    (head, worker), ends = lines(tmp_path / "nodes")[:2], lines(tmp_path / "nodes")[2:]
    assert ends == ["ended"] * 2
    mode, token, *words = head.split()
    assert mode == "token"
    assert re.fullmatch("[0-9a-f]{64}", token)
    assert token not in " ".join(words)
    assert "--head --node-ip-address=192.0.2.1 --port=6379" in head
    assert worker.startswith(f"token {token} start --block")
    assert "--address=192.0.2.1:6379" in worker
    (asked,) = lines(tmp_path / "searches")
    assert "--ray 192.0.2.1:6379 " in asked
    assert f"--checkpoints {tmp_path}/checkpoints" in asked
    assert asked.endswith("--space my space.yaml --trials 9")


@pytest.mark.parametrize("status", [0, 1])
def test_a_search_that_ends_ends_the_job_with_its_status(job, tmp_path, status):
    (tmp_path / "ends").write_text(str(status))
    assert job(nodes="1").wait(60) == status
    assert lines(tmp_path / "nodes")[1:] == ["ended"]
    assert not (tmp_path / "asked").exists()
