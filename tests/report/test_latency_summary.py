"""What is told of a table of latencies, and while one is made."""

import torch
from fake_machine import FakeMachine, space

from nas_recalib.latency import build_table
from nas_recalib.report.terminal import print_table
from nas_recalib.report.timings import RoundReporter, latency_summary
from nas_recalib.timing import Settings


def test_summary_and_progress(tmp_path, capsys):
    times, lines = iter(range(100, 1000, 2)), []
    told = RoundReporter(lines.append, clock=lambda: float(next(times)))
    settings = Settings(torch.device("cpu"), threads=1, compile=True)
    table = build_table(
        tmp_path / "t.json", space("stage"), settings, 8, rounds=6, progress=told, timer=FakeMachine()
    )
    assert len(lines) == 6
    assert lines[0].startswith("round 1/6: ")
    assert lines[0].endswith(" ms, the reference 21.00 ms, about 10 s left")
    assert lines[-1].endswith("about 0 s left")

    entries = {
        position.name: dict(zip(map(str, position.choices), row, strict=True))
        for position, row in zip(table.space.positions, table.entries, strict=True)
    }
    print_table(latency_summary(table))
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert shown[0].startswith("tiny on ")
    assert shown[0].endswith("batch 8, float32, compiled")
    assert "21.000 ms" in shown[1]
    assert shown[2].startswith(
        "a network: 2.000 ms + 1.000 * its entries; over the 6 rounds half are within 0.0%"
    )
    for position, first, slowest in (("layer1", "3.000", "12.750"), ("layer2", "6.500", "27.625")):
        for which, choice, figure in (
            ("first", "vanilla", first),
            ("fastest", "vanilla", first),
            ("slowest", "psconv+ab", slowest),
        ):
            samples = entries[position][choice].samples
            assert f"{position} {which} {choice} {figure} {samples} 0.0%" in shown
