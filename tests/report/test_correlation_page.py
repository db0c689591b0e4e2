"""What is shown of a comparison: the figures it came to, points where they belong, nothing that breaks it."""

import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from made_up_correlation import COUNT, architecture, baseline, correlation, score, training

from nas_recalib.architecture import Architecture
from nas_recalib.correlation.plan import Done, Task
from nas_recalib.correlation.recommend import judge
from nas_recalib.report.correlation import (
    WorkReporter,
    correlation_markdown,
    correlation_page,
    correlation_tables,
)
from nas_recalib.report.terminal import print_table

HOSTILE = '<script>alert("1")</script> & | [red]x'
SPACE = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "link", "br"}
SIGNALS = (
    baseline("params", 2.0),
    score("synflow", 1.2),
    training("quick", 2, 0.9, 2.0),
    training("quick", 4, 0.6, 4.0),
    training("standard", 8, 0.3, 40.0),
)


class Outline(HTMLParser):
    """Checks that tags are closed in order, and keeps the text and what is loaded."""

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
        self.text.append(data)


def outline(page):
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def drawings(page):
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def titles(svg):
    return [element.text for element in svg.iter(f"{SPACE}title")]


def panel_of(page, name):
    return next(svg for svg in drawings(page) if svg.get("aria-label").startswith(f"{name}: tau"))


@pytest.fixture(scope="module")
def judged():
    return judge(correlation(*SIGNALS))


def test_the_page_is_whole_and_loads_nothing(judged):
    found = outline(correlation_page(judged))
    assert found.loaded == []
    assert "script" not in found.tags
    assert len(drawings(correlation_page(judged))) == 1 + len(SIGNALS)


def test_it_says_what_was_judged(judged):
    told = " ".join(outline(correlation_page(judged)).text)
    for verdict in judged.verdicts:
        assert f"{verdict.signal.name}: tau {verdict.agreement.tau}" in told
    assert judged.recommendation.reason in told
    assert str(judged.ceiling.expected) in told
    assert "nas-recalib correlate --space resnet20" in told
    assert "digits" in told
    assert "resolution 16" in told


def test_names_are_shown_as_they_are_and_never_run():
    signals = [replace(s, name=f"{s.name}{HOSTILE}", fidelity=f"{s.fidelity}{HOSTILE}") for s in SIGNALS]
    named = {"study": HOSTILE, "space": HOSTILE, "budget": HOSTILE, "data": HOSTILE, "device": HOSTILE}
    hostile = judge(correlation(*signals, **named, commands=(HOSTILE,), reference={HOSTILE: HOSTILE}))
    page = correlation_page(hostile)
    found = outline(page)
    assert "script" not in found.tags
    assert "<script" not in page
    assert f"params{HOSTILE}: tau" in " ".join(found.text)
    assert len(drawings(page)) == 1 + len(SIGNALS)
    assert "<script" not in correlation_markdown(hostile)


def test_points_stand_where_they_belong_with_their_operators():
    signal = training("quick", 2, 0.0, 2.0, values=tuple(map(float, range(COUNT))))
    runs = tuple((0.2 + 0.01 * i, 0.22 + 0.01 * i) for i in range(COUNT))
    svg = panel_of(correlation_page(judge(correlation(signal, runs=runs))), signal.name)
    places = [(float(c.get("cx")), float(c.get("cy"))) for c in svg.iter(f"{SPACE}circle")]
    assert len(places) == COUNT
    (x0, y0), (x1, y1) = places[0], places[-1]
    for index, (x, y) in enumerate(places):
        share = index / (COUNT - 1)
        assert x == pytest.approx(x0 + share * (x1 - x0), abs=0.2)
        assert y == pytest.approx(y0 + share * (y1 - y0), abs=0.2)
    assert x1 - x0 > 150, "they fill it"
    assert y0 - y1 > 80
    bar = svg.find(f"{SPACE}path[@class='e']").get("d")
    assert bar.count("M") == COUNT
    x, bottom, top = map(float, re.match(r"M(\d+) (\d+)V(\d+)", bar).groups())
    assert x == pytest.approx(x0, abs=1)
    assert (bottom + top) / 2 == pytest.approx(y0, abs=1)
    assert bottom > top
    assert titles(svg)[3] == f"4: {Architecture.parse(architecture(3)).operators()}"


def test_values_of_many_magnitudes_are_spread_by_their_logarithm():
    signal = replace(SIGNALS[1], values=tuple(10.0 ** (i / 2) for i in range(COUNT)))
    svg = panel_of(correlation_page(judge(correlation(signal))), "synflow")
    across = [float(c.get("cx")) for c in svg.iter(f"{SPACE}circle")]
    steps = [right - left for left, right in pairwise(across)]
    assert min(steps) == pytest.approx(max(steps), abs=0.21)


def test_what_has_no_number_is_left_out_and_told():
    values = (math.nan, math.inf, *SIGNALS[2].values[2:])
    runs = ((math.nan, 0.5, 0.5), *correlation().runs[1:])
    told = judge(
        correlation(
            replace(SIGNALS[2], values=values), replace(SIGNALS[3], values=(math.nan,) * COUNT), runs=runs
        )
    )
    page = correlation_page(told)
    assert len(list(panel_of(page, "quick, epoch 2").iter(f"{SPACE}circle"))) == COUNT - 2
    assert "; 2 not drawn, no numbers" in page
    assert len(list(panel_of(page, "quick, epoch 4").iter(f"{SPACE}circle"))) == 0
    assert "nan" not in " ".join(outline(page).text)
    assert "quick, epoch 4: tau -;" in page


def test_the_chart_has_every_signal_the_ceiling_and_the_recommended_one(judged):
    chart = drawings(correlation_page(judged))[0]
    told = titles(chart)
    for verdict in judged.verdicts:
        assert any(text.startswith(f"{verdict.signal.name}, ") for text in told)
    assert any("one seed of the longer training against another" in text for text in told)
    ring = next(g for g in chart.iter(f"{SPACE}g") if g.find(f"{SPACE}circle[@class='r']") is not None)
    assert ring.find(f"{SPACE}title").text.startswith(judged.recommendation.signal)
    assert chart.find(f"{SPACE}path[@class='c']") is not None
    marks = {g.find(f"{SPACE}title").text.split(", tau")[0]: g for g in chart.iter(f"{SPACE}g")}
    quick, standard = (
        next(g.find(f"{SPACE}circle") for text, g in marks.items() if text.startswith(name))
        for name in ("quick, epoch 2", "standard, epoch 8")
    )
    assert float(quick.get("cx")) < float(standard.get("cx"))
    assert float(quick.get("cy")) > float(standard.get("cy"))


def test_one_seed_has_no_ceiling():
    told = judge(correlation(*SIGNALS, seeds=1))
    page = correlation_page(told)
    assert "Ceiling: not known" in page
    assert all(svg.find(f"{SPACE}path[@class='{kind}']") is None for svg in drawings(page) for kind in "ce")


def test_a_large_comparison_stays_small():
    choices = (
        "psconv(pattern=1-2,vary=in)+msar(scales=1-2)",
        "scconv(r=2,pooling=max)+ab(groups=4)",
        "psconv+se",
    )
    drawn = [[choices[(i + block * (1 + i % 5)) % 3] for block in range(9)] for i in range(60)]
    blocks = (" ".join(f"layer{1 + b // 3}.{b % 3}={c}" for b, c in enumerate(row)) for row in drawn)
    large = correlation(
        *(
            training("quick", e, 1.0, float(e), values=tuple((i * e) % 61 / 7 for i in range(60)))
            for e in range(1, 31)
        ),
        architectures=tuple(f"resnet20@32/10 {text}" for text in blocks),
        macs=(40_800_000,) * 60,
        params=(270_000,) * 60,
        runs=tuple((0.5 + i / 300, 0.51 + i / 300, 0.49 + i / 299) for i in range(60)),
    )
    page = correlation_page(judge(large))
    assert len(page.encode()) < 300_000
    told = titles(panel_of(page, "quick, epoch 7"))
    assert all(re.match(rf"{number}: \d (ps|sc)conv", text) for number, text in enumerate(told, 1))
    assert any(text.endswith("…") for text in told), "shortened where they are long"


def test_tables_and_markdown_have_every_signal(judged, capsys):
    print_table(correlation_tables(judged))
    shown = capsys.readouterr().out
    written = correlation_markdown(judged)
    for verdict in judged.verdicts:
        for figure in (verdict.signal.name, str(verdict.agreement.tau), str(verdict.agreement.rho)):
            assert figure in shown
            assert figure in written
    assert f"{judged.recommendation.signal} (recommended)" in shown
    assert "tau over params" in written
    assert f"{judged.verdicts[-1].over_baseline:+}" in written
    assert f"{judged.ceiling.seed_std:.4f}" in shown


def test_a_row_of_markdown_stays_a_row():
    signals = [replace(SIGNALS[1], name="a|b\n[red]c"), SIGNALS[2]]
    lines = correlation_markdown(judge(correlation(*signals))).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(signals)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}
    assert r"a\|b [red]c" in rows[2]


def test_marked_up_names_reach_the_terminal(capsys):
    print_table(correlation_tables(judge(correlation(replace(SIGNALS[1], name="[red]c"), SIGNALS[2]))))
    assert "[red]c" in capsys.readouterr().out


def extents(svg):
    """Where each line of text begins and ends, in pixels, at a generous 7 for each letter."""
    width = float(svg.get("viewBox").split()[2])
    for text in svg.iter(f"{SPACE}text"):
        if text.get("transform") is None:
            length, x = 7 * len(text.text), float(text.get("x"))
            start = x - length * {None: 0, "start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor")]
            yield text.text, start, start + length, width


@pytest.mark.parametrize("seconds", [0.3, 120.0, 86_400.0])
def test_no_label_is_clipped(seconds):
    values = tuple(40_800_000.0 + 1_300 * i for i in range(COUNT))
    shown = (
        replace(baseline("params", 2.0), values=values),
        replace(score("a-score-with-a-long-name", 1.2), seconds=90_000.0),
        replace(score("zen", 1.2), values=tuple(-1e-4 * i for i in range(COUNT))),
        replace(score("fisher", 1.2), values=tuple(2e-7 * i for i in range(COUNT))),
        *(training("quick", epoch, 0.9, seconds) for epoch in (1, 2)),
    )
    runs = tuple((0.4 + 1e-4 * i, 0.4 + 1.1e-4 * i) for i in range(COUNT))
    judged = judge(correlation(*shown, runs=runs, reference_seconds=seconds))
    for svg in drawings(correlation_page(judged)):
        for text, start, end, width in extents(svg):
            assert start >= 0, text
            assert end <= width, text
        for tick in svg.iter(f"{SPACE}text"):
            x = float(tick.get("x"))
            if tick.get("text-anchor") == "end" and x < 70:  # of the upright axis, beside its label
                assert x - 6.5 * len(tick.text) >= 14, tick.text


def test_architectures_have_one_numbering_in_progress_and_on_the_page():
    lines = []
    WorkReporter(3, lines.append, clock=lambda: 0.0)(Done(Task(0, "quick", 1), 2.0, (0.5,)))
    assert lines[0].startswith("1/3: architecture 1, quick, seed 1: 0.5000, 2 s")
