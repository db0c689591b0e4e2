"""The scatter plot: whole SVG, points where they belong, and nothing that breaks it."""

import xml.etree.ElementTree as ElementTree

import pytest
from scatter import scatter

NAMESPACE = "{http://www.w3.org/2000/svg}"
POINTS = [(10.0, 10.0), (12.0, 14.0), (20.0, 20.0)]


def drawn(points=POINTS, **more):
    given = {"title": "t", "x_label": "x", "y_label": "y", **more}
    return ElementTree.fromstring(scatter(points, **given))


def circles(svg):
    return [(float(c.get("cx")), float(c.get("cy"))) for c in svg.iter(f"{NAMESPACE}circle")]


def box(svg):
    square = svg.find(f".//{NAMESPACE}clipPath/{NAMESPACE}rect")
    x, y, width, height = (float(square.get(key)) for key in ("x", "y", "width", "height"))
    return x, x + width, y, y + height


@pytest.mark.parametrize("scale", [1e-6, 0.013, 1.0, 7.7, 12345.0])
def test_points_stand_where_they_belong_whatever_their_size(scale):
    svg = drawn([(x * scale, y * scale) for x, y in POINTS])
    left, right, top, bottom = box(svg)
    places = circles(svg)
    assert len(places) == 3
    assert all(left <= x <= right and top <= y <= bottom for x, y in places)
    (x0, y0), (x1, y1), (x2, y2) = places
    assert x0 - left == pytest.approx(bottom - y0, abs=0.11), "on the diagonal"
    assert x2 - left == pytest.approx(bottom - y2, abs=0.11)
    assert bottom - y1 > x1 - left, "above it"
    assert (x1 - x0) / (x2 - x0) == pytest.approx(0.2, abs=0.01)
    assert (y1 - y0) / (y2 - y0) == pytest.approx(0.4, abs=0.01)
    assert (x2 - x0) > (right - left) / 3, "they fill the square"


def test_what_is_written_is_shown_as_it_is():
    svg = drawn(title='<a & "b">', x_label="x < y", labels=["<p>", "&", "q"])
    texts = [element.text for element in svg.iter(f"{NAMESPACE}text")]
    assert '<a & "b">' in texts
    assert "x < y" in texts
    assert [element.text for element in svg.iter(f"{NAMESPACE}title")] == ["<p>", "&", "q"]


def test_axes_are_marked_alike_with_round_numbers():
    texts = [element.text for element in drawn().iter(f"{NAMESPACE}text")]
    ticks = [float(text) for text in texts if text.replace(".", "").isdigit()]
    assert sorted(ticks) == sorted(2 * [10.0, 12.0, 14.0, 16.0, 18.0, 20.0])


def test_the_band_is_drawn_if_asked_for():
    assert drawn().find(f".//{NAMESPACE}polygon") is None
    svg = drawn(band=0.1)
    left, right, _, bottom = box(svg)
    corners = [
        tuple(map(float, p.split(","))) for p in svg.find(f".//{NAMESPACE}polygon").get("points").split()
    ]
    pixels = (right - left) / 10  # the axes go from 10 to 20
    expected = [(10, 9), (20, 18), (20, 22), (10, 11)]
    for (x, y), (a, b) in zip(corners, expected, strict=True):
        assert x == pytest.approx(left + (a - 10) * pixels, abs=0.11)
        assert y == pytest.approx(bottom - (b - 10) * pixels, abs=0.11)


@pytest.mark.parametrize("points", [[(3.0, 3.0)], [(5.0, 5.0), (5.0, 5.0)], [(0.0, 0.0)], [(-2.0, 1.0)]])
def test_few_and_equal_points_are_drawn_too(points):
    assert len(circles(drawn(points))) == len(points)


@pytest.mark.parametrize(
    ("points", "labels", "named"),
    [
        ([], [], "points: expected one at least"),
        ([(1.0, float("nan"))], [], "points: .* finite"),
        ([(float("inf"), 1.0)], [], "points: .* finite"),
        (POINTS, ["one"], "labels: 1 for 3 points"),
    ],
)
def test_what_cannot_be_drawn_is_refused(points, labels, named):
    with pytest.raises(ValueError, match=named):
        drawn(points, labels=labels)
