import torch

from nas_recalib.operators import BlockChoice
from nas_recalib.report.terminal import print_table
from nas_recalib.report.timings import timing_tables
from nas_recalib.timing.cases import Case, Place
from nas_recalib.timing.paired import Times
from nas_recalib.timing.run import Result


def result(name, *ratios):
    place = Place("blocks", "cifar", name, (16, 32, 32), lambda _: torch.nn.Identity())
    return Result(
        Case(place, BlockChoice.parse("psconv(pattern=1-2)+ab"), 128),
        Times(tuple((0.001, 0.001 * ratio) for ratio in ratios), iterations=20),
    )


def test_tables_have_every_case_and_the_geometric_mean(capsys):
    results = [result("layer1.1", 1.0, 1.0, 1.0, 1.25, 1.5), result("layer2.1", *[4.0] * 5)]
    print_table(timing_tables(results))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    choice = "128 psconv(pattern=1-2)+ab"
    assert f"blocks layer1.1 {choice} 1.000 1.000 1.000 1.000 to 1.250 5" in lines
    assert f"blocks layer2.1 {choice} 1.000 4.000 4.000 4.000 to 4.000 5" in lines
    assert f"blocks cifar {choice} 2 2.000 4.000" in lines
