"""Report of a latency table, and progress lines of its calibration."""

import torch
from fake_machine import FakeMachine, space

from nas_recalib.latency.table import build_table
from nas_recalib.report.terminal import print_table
from nas_recalib.report.timings import latency_summary, round_reporter
from nas_recalib.timing.cases import Settings


def test_summary_and_progress(tmp_path, capsys):
    times, lines = iter(range(100, 1000, 2)), []
    progress = round_reporter(lines.append, clock=lambda: float(next(times)))
    settings = Settings(torch.device("cpu"), threads=1, compile=True)
    table = build_table(
        tmp_path / "t.json", space("stage"), settings, 8, rounds=6, progress=progress, timer=FakeMachine()
    )
    assert len(lines) == 6
    assert lines[0].startswith("round 1/6: ")
    assert lines[0].endswith(" ms, reference 21.00 ms, about 0 min 10 s left")
    assert lines[-1].endswith("about 0 min 00 s left")

    entries = {
        position.name: dict(zip(map(str, position.choices), row, strict=True))
        for position, row in zip(table.space.positions, table.entries, strict=True)
    }
    print_table(latency_summary(table))
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert shown[0].startswith("tiny on ")
    assert shown[0].endswith("batch size 8, float32, compiled")
    assert "21.000 ms" in shown[1]
    assert shown[2].startswith(
        "predicted latency = 2.000 ms + 1.000 * sum of its entries; error over 6 rounds: median 0.0%, "
    )
    for position, first, slowest in (("layer1", "3.000", "12.750"), ("layer2", "6.500", "27.625")):
        for which, choice, figure in (
            ("first", "vanilla", first),
            ("fastest", "vanilla", first),
            ("slowest", "psconv+ab", slowest),
        ):
            samples = entries[position][choice].samples
            assert f"{position} {which} {choice} {figure} {samples} 0.0%" in shown
