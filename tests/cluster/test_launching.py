"""Commands and files in docs/clusters and docs/storage.md."""

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
from typer.main import get_command

from nas_recalib.cli import app

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [*sorted((DOCS / "clusters").glob("*.md")), DOCS / "storage.md"]
FILES = [path for path in sorted((DOCS / "clusters").iterdir()) if path.suffix != ".md"]
COMMAND = re.compile(r"(?:^|\$ |&& |; |exec )\s*nas-recalib (.*)")
BATCH = DOCS / "clusters" / "search.sbatch"


def fenced(page, *languages):
    blocks = re.findall(r"^ *```(\w*)\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [body for language, body in blocks if language in languages]


def scalars(node):
    """Yield all texts of a YAML document; a list of words, such as a container's command, is one text."""
    if isinstance(node, list) and node and all(isinstance(one, str) for one in node):
        yield shlex.join(node)
    elif isinstance(node, list | dict):
        for one in node.values() if isinstance(node, dict) else node:
            yield from scalars(one)
    elif isinstance(node, str):
        yield node


def written(path):
    """Yield the texts of a file that may contain command lines."""
    if path.suffix == ".md":
        spans = re.findall(r"`(nas-recalib [^`]*)`", path.read_text(encoding="utf-8"))
        yield from (" ".join(span.split()) for span in spans)
        yield from fenced(path, "", "sh", "bash")
        yield from (text for block in fenced(path, "yaml") for text in yaml_texts(block))
    elif path.suffix == ".yaml":
        yield from yaml_texts(path.read_text(encoding="utf-8"))
    else:
        yield path.read_text(encoding="utf-8")


def yaml_texts(text):
    return [one for document in yaml.safe_load_all(text) for one in scalars(document)]


def command_lines(path):
    for text in written(path):
        for line in text.replace("\\\n", " ").splitlines():
            if not line.lstrip().startswith("#") and (found := COMMAND.search(line)):
                words = shlex.split(found[1], comments=True)
                end = next((i for i, word in enumerate(words) if word in ("&", "&&", "|", ">", ";")), None)
                yield [word for word in words[:end] if word != "$@"]


COMMANDS = [(path.name, words) for path in (*PAGES, *FILES) for words in command_lines(path)]


@pytest.mark.parametrize(("where", "words"), COMMANDS, ids=lambda given: str(given)[:100])
def test_every_command_line_is_valid(where, words):
    command = get_command(app)
    context = command.make_context("nas-recalib", list(words))
    while hasattr(command, "resolve_command"):
        name, command, words = command.resolve_command(context, words)
        context = command.make_context(name, list(words), parent=context)


def test_the_pages_have_command_lines_and_an_unknown_option_is_noticed():
    without = {path.name for path in (*PAGES, *FILES)} - {where for where, _ in COMMANDS}
    assert without == {"ray-on-premise.yaml"}
    with pytest.raises(Exception, match="No such option"):
        test_every_command_line_is_valid("", ["search", "--rey", "auto"])


def test_links_between_the_pages_exist():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)[)#]", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_configuration_for_ray_up_is_valid():
    given = yaml.safe_load((DOCS / "clusters" / "ray-on-premise.yaml").read_text())
    config = prepare_config(given)
    validate_config(config)
    assert config["max_workers"] == len(given["provider"]["worker_ips"])
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in commands[-1]


def test_the_kubernetes_manifest_is_complete():
    manifest = yaml.safe_load_all((DOCS / "clusters" / "rayjob.yaml").read_text())
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
    assert len(images) == 1, "every node has the same image"


@pytest.mark.parametrize("path", [BATCH, *PAGES], ids=lambda path: path.name)
def test_shell_code_has_valid_syntax(path):
    texts = [path.read_text()] if path == BATCH else fenced(path, "sh", "bash")
    for text in texts:
        read = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
        assert (read.returncode, read.stderr) == (0, ""), text


STAND_INS = {  # nodes run until SIGTERM, and so does a search, with the exit status of an interruption
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
    """Return a function that starts the batch file with stand-ins for the programs that it calls."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in STAND_INS.items():
        program = programs / name
        program.write_text(f"#!/bin/bash\n{text}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    variables = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_CPUS_PER_TASK": "2",
        "SLURMD_NODENAME": "first",
        "HEAD_IP": "192.0.2.1",
    }
    command = ["bash", str(BATCH), "--space", "my space.yaml", "--trials", "9"]
    started = []

    def start(nodes="2"):  # the step on all other nodes is one process here
        with (tmp_path / "log").open("w") as log:
            environment = {**os.environ, **variables, "SLURM_JOB_NUM_NODES": nodes}
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
    os.kill(process.pid, signal.SIGTERM)  # to the batch shell alone, as with --signal=B:
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
