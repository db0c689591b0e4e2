"""What no other beats in everything at once, and how much of all that is thinkable it covers."""

from collections.abc import Sequence

Point = tuple[float, ...]  # all to be as great as possible


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other is at least as good as in everything; of equals the first."""
    return [
        index
        for index, point in enumerate(points)
        if not any(
            (other != point and _covers(other, point)) or (other == point and before < index)
            for before, other in enumerate(points)
        )
    ]


def hypervolume(points: Sequence[Point]) -> float:
    """Of everything between the origin and any of the points; what is below the origin counts as on it."""
    inside = [tuple(max(0.0, value) for value in point) for point in points]
    return _volume(inside) if inside else 0.0


def hypervolumes(points: Sequence[Point]) -> list[float]:
    """The hypervolume of the first point, of the first two, and so on."""
    volumes: list[float] = []
    leading: list[Point] = []
    for point in points:
        if any(_covers(other, point) for other in leading):
            volumes.append(volumes[-1])
            continue
        leading = [other for other in leading if not _covers(point, other)] + [point]
        volumes.append(hypervolume(leading))
    return volumes


def _covers(one: Point, other: Point) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True))


def _volume(points: Sequence[Point]) -> float:
    """Slice by slice along the last coordinate, each with the volume of what reaches into it."""
    if len(points[0]) == 1:
        return max(point[0] for point in points)
    ordered = sorted(points, key=lambda point: -point[-1])
    lower = [point[-1] for point in ordered[1:]] + [0.0]
    return sum(
        (point[-1] - below) * _volume([one[:-1] for one in ordered[: index + 1]])
        for index, (point, below) in enumerate(zip(ordered, lower, strict=True))
        if point[-1] > below
    )
