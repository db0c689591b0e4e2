"""Report of a correlation study: its figures, tables and page, whatever names and values it has."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from made_up_correlation import COUNT, architecture, baseline, correlation, score, training
from plotly.offline import get_plotlyjs

from nas_recalib.architecture import Architecture
from nas_recalib.correlation.recommend import evaluate
from nas_recalib.correlation.study import Done, Task
from nas_recalib.report.correlation import (
    correlation_markdown,
    correlation_page,
    correlation_tables,
    cost_figure,
    signal_figure,
    task_reporter,
)
from nas_recalib.report.terminal import print_table

HOSTILE = '<script>alert("1")</script> & | [red]x'
VOID = {"meta", "link", "br"}
SIGNALS = (
    baseline("params", 2.0),
    score("synflow", 1.2),
    training("quick", 2, 0.9, 2.0),
    training("quick", 4, 0.6, 4.0),
    training("standard", 8, 0.3, 40.0),
)


class Outline(HTMLParser):
    """Parser that checks that tags are closed in order, and keeps texts and addresses."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags, self.loaded = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href", "data", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["script"]:
            self.text.append(data)


def outline(page):
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def trace(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def result_of(findings, name):
    return next(result for result in findings.results if result.signal.name == name)


def points_of(findings, name):
    names = [Architecture.parse(text).operators() for text in findings.correlation.architectures]
    figure = signal_figure(findings, result_of(findings, name), names)
    return figure, figure.data[0]


@pytest.fixture(scope="module")
def findings():
    return evaluate(correlation(*SIGNALS))


def test_the_page_is_complete_and_loads_nothing(findings):
    page = correlation_page(findings)
    assert outline(page).loaded == []
    assert page.count("Plotly.newPlot(") >= 1 + len(SIGNALS)


def test_it_states_what_was_evaluated(findings):
    text = " ".join(outline(correlation_page(findings)).text)
    for result in findings.results:
        assert f"{result.signal.name}: tau {result.agreement.tau}" in text
    assert findings.recommendation.reason in text
    assert str(findings.ceiling.expected) in text
    assert "nas-recalib correlate --space resnet20" in text
    assert "digits" in text
    assert "resolution 16" in text


def test_names_are_shown_as_they_are_and_never_run():
    signals = [replace(s, name=f"{s.name}{HOSTILE}", fidelity=f"{s.fidelity}{HOSTILE}") for s in SIGNALS]
    named = {"study": HOSTILE, "space": HOSTILE, "budget": HOSTILE, "data": HOSTILE, "device": HOSTILE}
    hostile = evaluate(correlation(*signals, **named, commands=(HOSTILE,), reference={HOSTILE: HOSTILE}))
    page = correlation_page(hostile)
    found = outline(page)
    usual = outline(correlation_page(evaluate(correlation(*SIGNALS))))
    assert found.tags.count("script") == usual.tags.count("script")
    assert "<script>alert" not in page
    assert f"params{HOSTILE}: tau" in " ".join(found.text)
    assert "<script" not in correlation_markdown(hostile)


def test_points_have_the_values_the_seeds_and_the_operators():
    signal = training("quick", 2, 0.0, 2.0, values=tuple(map(float, range(COUNT))))
    runs = tuple((0.2 + 0.01 * i, 0.22 + 0.01 * i) for i in range(COUNT))
    figure, points = points_of(evaluate(correlation(signal, runs=runs)), signal.name)
    assert list(points.x) == list(signal.values)
    assert list(points.y) == pytest.approx([0.21 + 0.01 * i for i in range(COUNT)])
    assert list(points.error_y.array) == pytest.approx([0.01] * COUNT)
    assert list(points.error_y.arrayminus) == pytest.approx([0.01] * COUNT)
    assert points.error_y.visible
    assert points.text[3] == f"4: {Architecture.parse(architecture(3)).operators()}"
    assert figure.layout.xaxis.type is None


def test_values_of_many_magnitudes_have_a_logarithmic_axis():
    signal = replace(SIGNALS[1], values=tuple(10.0 ** (i / 2) for i in range(COUNT)))
    figure, _ = points_of(evaluate(correlation(signal)), "synflow")
    assert figure.layout.xaxis.type == "log"


def test_values_that_are_not_finite_are_left_out_and_counted():
    values = (math.nan, math.inf, *SIGNALS[2].values[2:])
    runs = ((math.nan, 0.5, 0.5), *correlation().runs[1:])
    found = evaluate(
        correlation(
            replace(SIGNALS[2], values=values), replace(SIGNALS[3], values=(math.nan,) * COUNT), runs=runs
        )
    )
    page = correlation_page(found)
    assert len(points_of(found, "quick, epoch 2")[1].x) == COUNT - 2
    assert "; 2 without a finite value are not drawn" in page
    assert len(points_of(found, "quick, epoch 4")[1].x) == 0
    assert "nan" not in " ".join(outline(page).text)
    assert "quick, epoch 4: tau -;" in page


def test_the_cost_figure_has_every_signal_the_ceiling_and_the_recommended_one(findings):
    figure = cost_figure(findings)
    texts = [text for trace in figure.data for text in trace.text or ()]
    for result in findings.results:
        assert any(text.startswith(f"{result.signal.name}, ") for text in texts)
    assert any("one seed of the longer training against another" in text for text in texts)
    (recommended,) = trace(figure, "recommended").text
    assert recommended.startswith(findings.recommendation.signal)
    assert any(shape.type == "rect" for shape in figure.layout.shapes)
    assert list(trace(figure, "quick").x) == [2.0, 4.0]
    assert list(trace(figure, "standard").x) == [40.0]
    taus = [result_of(findings, f"quick, epoch {epoch}").agreement.tau for epoch in (2, 4)]
    assert list(trace(figure, "quick").y) == [tau.value for tau in taus]
    assert list(trace(figure, "quick").error_y.array) == [tau.high - tau.value for tau in taus]
    assert 0 < trace(figure, "baselines").x[0] < 0.02, "left of all that cost something"


def test_one_seed_has_no_ceiling():
    found = evaluate(correlation(*SIGNALS, seeds=1))
    assert "Noise ceiling: unknown" in correlation_page(found)
    assert not cost_figure(found).layout.shapes
    assert points_of(found, "synflow")[1].error_y.visible is False


def test_a_large_comparison_adds_little_to_plotly():
    large = correlation(
        *(
            training("quick", e, 1.0, float(e), values=tuple((i * e) % 61 / 7 for i in range(60)))
            for e in range(1, 31)
        ),
        architectures=tuple(architecture(index) for index in range(60)),
        macs=(40_800_000,) * 60,
        params=(270_000,) * 60,
        runs=tuple((0.5 + i / 300, 0.51 + i / 300, 0.49 + i / 299) for i in range(60)),
    )
    page = correlation_page(evaluate(large))
    assert len(page.encode()) < len(get_plotlyjs().encode()) + 1_000_000


def test_tables_and_markdown_have_every_signal(findings, capsys):
    print_table(correlation_tables(findings))
    shown = capsys.readouterr().out
    written = correlation_markdown(findings)
    for result in findings.results:
        for figure in (result.signal.name, str(result.agreement.tau), str(result.agreement.rho)):
            assert figure in shown
            assert figure in written
    assert f"{findings.recommendation.signal} (recommended)" in shown
    assert "tau over params" in written
    assert f"{findings.results[-1].over_baseline:+}" in written
    assert f"{findings.ceiling.seed_std:.4f}" in shown


def test_a_row_of_markdown_stays_a_row():
    signals = [replace(SIGNALS[1], name="a|b\n[red]c"), SIGNALS[2]]
    lines = correlation_markdown(evaluate(correlation(*signals))).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(signals)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}
    assert r"a\|b [red]c" in rows[2]


def test_marked_up_names_reach_the_terminal(capsys):
    print_table(correlation_tables(evaluate(correlation(replace(SIGNALS[1], name="[red]c"), SIGNALS[2]))))
    assert "[red]c" in capsys.readouterr().out


def test_architectures_have_one_numbering_in_progress_and_on_the_page():
    lines = []
    task_reporter(3, lines.append, clock=lambda: 0.0)(Done(Task(0, "quick", 1), 2.0, (0.5,)))
    assert lines[0].startswith("1/3: architecture 1, quick, seed 1: 0.5000, 2 s")
