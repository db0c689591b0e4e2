"""What README.md and the pages under docs/ say: commands, code blocks, links, lists of names."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from typer.main import get_command

from nas_recalib.cli import app, run
from nas_recalib.data.sources import open_source
from nas_recalib.operators.catalog import names, parse_part
from nas_recalib.proxy.fidelity import Fidelity, find_fidelity
from nas_recalib.space import SearchSpace

ROOT = Path(__file__).parent.parent
README = "README.md"
PAGES = [README, *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
CLUSTER_FILES = ["docs/clusters/rayjob.yaml", "docs/clusters/search.sbatch"]
COMMAND = re.compile(r"(?:(?:^|\$ |&& |; |exec |bin/)\s*nas-recalib|-m nas_recalib) (.*)")
TINY_SEARCH = "--data digits --images 40 --validation 20 --resolution 8 --epochs 1 --width 0.5"
TINY_TRAINING = (
    "--data digits --epochs 1 --batch-size 8 --limit-batches 1 --input-size 8 --workers 0 --device cpu"
)


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page, *languages):
    """Return the fenced code blocks of a page in some languages; "exec" are those that the site runs."""
    fenced = re.findall(r"^```(\w*)( exec=\"on\")?\n(.*?)^```", read(page), re.M | re.S)
    return [body for language, executed, body in fenced if ("exec" if executed else language) in languages]


def yaml_texts(text):
    """Return the texts of YAML documents; a list of words, such as a container's command, is one text."""

    def scalars(node):
        if isinstance(node, list) and node and all(isinstance(item, str) for item in node):
            yield shlex.join(node)
        elif isinstance(node, list | dict):
            for item in node.values() if isinstance(node, dict) else node:
                yield from scalars(item)
        elif isinstance(node, str):
            yield node

    return [text for document in yaml.safe_load_all(text) for text in scalars(document)]


def shell_texts(file):
    """Return the parts of a file that may hold command lines."""
    if file.endswith(".md"):
        spans = re.findall(r"`(nas-recalib [^`]*)`", read(file))
        texts = [text for block in blocks(file, "yaml") for text in yaml_texts(block)]
        return [*(" ".join(span.split()) for span in spans), *blocks(file, "", "sh", "bash"), *texts]
    return yaml_texts(read(file)) if file.endswith(".yaml") else [read(file)]


def command_lines(file):
    """Return the arguments of every `nas-recalib` command in a file."""
    found = []
    for text in shell_texts(file):
        for line in text.replace("\\\n", " ").splitlines():
            if not line.lstrip().startswith("#") and (match := COMMAND.search(line)):
                words = shlex.split(match[1], comments=True)
                end = next((i for i, word in enumerate(words) if word in ("&", "&&", "|", ">", ";")), None)
                found.append([word for word in words[:end] if word != "$@"])
    return found


def parse(words):
    """Parse the arguments of a command without running it."""
    command = get_command(app)
    context = command.make_context("nas-recalib", list(words))
    while hasattr(command, "resolve_command"):
        name, command, words = command.resolve_command(context, words)
        context = command.make_context(name, list(words), parent=context)


@pytest.mark.parametrize("file", [*PAGES, *CLUSTER_FILES])
def test_every_command_is_one_that_the_program_accepts(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in command_lines(file):
        parse(words)


def test_commands_are_found_and_an_unknown_option_is_noticed():
    for file in (README, "docs/getting-started.md", "docs/storage.md", *CLUSTER_FILES):
        assert command_lines(file), file
    with pytest.raises(Exception, match="No such option"):
        parse(["search", "--rey", "auto"])


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    for link, _, heading in re.findall(r"\]\(([^)#:]*)(#([^)]*))?\)", read(page)):
        target = (ROOT / page).parent / link if link else ROOT / page
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
            assert heading in [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sh", "bash")])
def test_shell_blocks_have_no_syntax_errors(page):
    text = "\n".join(blocks(page, "sh", "bash"))
    checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_every_python_block_is_run_by_a_test_below():
    counts = {page: len(blocks(page, "python")) for page in PAGES if blocks(page, "python")}
    expected = {"getting-started": 1, "operators": 1, "python-api": 2, "training": 1}
    assert counts == {f"docs/{name}.md": count for name, count in expected.items()}


def test_the_readme_is_short():
    assert len(read(README).split()) <= 1300


def test_the_share_of_the_space_that_the_readme_names_is_counted():
    space = SearchSpace.load("resnet50")
    share = space.count("4G") / space.count()
    assert f"{share:.0%} of the space meet it" in read("README.md")


def test_the_first_two_shell_blocks_of_the_readme_are_one_line_each():
    """The second is the test command, which .ci/run reads from there."""
    first, second = blocks(README, "sh")[:2]
    assert first.count("\n") == second.count("\n") == 1
    assert "nas-recalib search --space resnet50 --budget 4G" in first
    assert "pytest" in second


def test_the_python_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example, _ = blocks("docs/python-api.md", "python")
    exec(compile(example, "python-api.md", "exec"), {})
    assert (tmp_path / "mine.yaml").is_file()


def test_the_example_of_a_backbone_runs():
    _, example = blocks("docs/python-api.md", "python")
    names = {}
    exec(compile(example, "python-api.md", "exec"), names)
    strides = {key: 64 // m.shape[-1] for key, m in names["maps"].items()}
    assert strides == {"0": 4, "1": 8, "2": 16, "3": 32}
    assert set(names["detector"].eval()([names["image"]])[0]) == {"boxes", "labels", "scores"}


def test_the_example_of_a_space_loads(tmp_path):
    (example,) = blocks("docs/search-spaces.md", "yaml")
    (tmp_path / "my.yaml").write_text(example)
    assert SearchSpace.load(tmp_path / "my.yaml").count() == 3**13 * 9**3


def test_the_example_of_a_fidelity_loads(tmp_path):
    (example,) = blocks("docs/proxies.md", "yaml")
    path = tmp_path / "mine.yaml"
    path.write_text(example)
    source = open_source("digits", tmp_path)
    found = find_fidelity(str(path), SearchSpace.load("resnet50"), source, torch.device("cpu"))
    assert found == Fidelity(**yaml.safe_load(example))


def test_an_own_operator_is_checked_searched_exported_and_trained(tmp_path, monkeypatch, forget, capsys):
    """The commands of operators.md, getting-started.md and training.md, one after the other on one study."""
    monkeypatch.chdir(tmp_path)
    page = read("docs/operators.md")
    (example,) = blocks("docs/operators.md", "python")
    (tmp_path / "my_ops.py").write_text(example)
    (options,) = re.findall(r"`(recalibration: \[.*?\])` in `my.yaml`", page)
    space = "name: my\nbackbone: resnet20\ngranularity: network\nconvolution: [vanilla]\n"
    (tmp_path / "my.yaml").write_text(f"{space}{options}\n")
    (commands,) = blocks("docs/operators.md", "sh")
    check, search = commands.splitlines()
    (program,) = re.fullmatch('python -c "(.*)"', check).groups()
    monkeypatch.syspath_prepend(tmp_path)
    exec(program, {})
    number = int(re.search(r"runs the ([0-9]+) checks", page)[1])
    assert capsys.readouterr().out.startswith(f"gate passes {number - 1} checks; not run: groups (only")
    forget()
    assert run([*search.split()[1:], *TINY_SEARCH.split()]) == 0
    assert "gate(level=2)" in capsys.readouterr().out

    _, job = blocks("docs/getting-started.md", "sh")
    _, *later, _ = (line.split("#")[0].replace("resnet50-4g", "my").split()[1:] for line in job.splitlines())
    assert [words[0] for words in later] == ["show", "export", "cost"]
    for words in later:
        assert run([*words, "--plugin=my_ops"]) == 0
    (loading,) = blocks("docs/getting-started.md", "python")
    exec(loading.replace("resnet50-4g", "my"), {})
    capsys.readouterr()

    (training,) = blocks("docs/training.md", "sh")
    words = training.splitlines()[0].split()[1:]
    assert words[:3] == ["train", "best.yaml", "--data"]
    assert run([*words, *TINY_TRAINING.split(), "--plugin=my_ops"]) == 0
    (loading,) = blocks("docs/training.md", "python")
    exec(loading, {})
    files = re.findall(r"^\| `([a-z.]*)` \|", read("docs/training.md"), re.M)
    written = {path.name for path in Path("runs/train-best").iterdir()}
    assert written == set(files) - {"best.safetensors"}


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (
            "docs/commands.md",
            ["# `nas-recalib search`", "| `--budget MACS` |", "# `nas-recalib storage check`"],
        ),
        ("docs/code.md", ["| `space.py` |", "| `search/samplers/predictor.py` |"]),
    ],
)
def test_the_parts_that_are_generated_with_the_site(page, expected, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (program,) = blocks(page, "exec")
    exec(program, {})
    printed = capsys.readouterr().out
    assert [line for line in expected if line not in printed] == []


def test_the_table_of_operators_has_every_operator_with_its_defaults():
    rows = re.findall(r"^\| (`.*?`) \|", read("docs/search-spaces.md"), re.M)
    texts = [text for row in rows for text in re.findall(r"`([a-z-]+(?:\([^`]*\))?)`", row)]
    listed = [text.split("(")[0] for text in texts]
    for kind in ("convolution", "recalibration"):
        assert set(names(kind)) <= set(listed)
        for text in texts:
            if text.split("(")[0] in names(kind) and "..." not in text:
                assert str(parse_part(text, kind)) == text.split("(")[0], "these are the defaults"


def test_every_search_space_is_listed():
    page = read("docs/search-spaces.md")
    assert [path.stem for path in (ROOT / "search_spaces").iterdir() if f"`{path.stem}`" not in page] == []


def test_packages_import_only_from_those_further_down_in_the_list():
    listing = read("docs/code.md").split("## Benchmarks")[0]
    rows = re.findall(r"^\| ((?:`[a-z_./]+`(?:, )?)+) \|", listing, re.M)
    listed = [[name.strip("/`").removesuffix(".py") for name in row.split(", ")] for row in rows]
    level = {name: number for number, row in enumerate(listed) for name in row}
    package = ROOT / "nas_recalib"
    files = [path.relative_to(package).parts for path in package.rglob("*.py")]
    assert set(level) == {parts[0].removesuffix(".py") for parts in files} - {"__init__", "__main__"}
    for parts in files:
        importer = parts[0].removesuffix(".py")
        source = package.joinpath(*parts).read_text(encoding="utf-8")
        for imported in re.findall(r"^ *(?:from|import) nas_recalib\.(\w+)", source, re.M):
            assert importer not in level or level[importer] <= level[imported], f"{parts}: {imported}"
