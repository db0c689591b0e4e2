from small_study import small_study

from nas_recalib.report.tables import study_tables
from nas_recalib.report.terminal import print_table
from nas_recalib.study.summary import summarise


def test_tables_name_the_best_its_blocks_and_the_baselines(capsys):
    print_table(study_tables(summarise(small_study()), top=2))
    told = capsys.readouterr().out
    assert "best: trial 1, accuracy 0.7000 ± 0.0229" in told
    assert "layer3.2" in told
    assert "1 diverged" in told
    assert "all vanilla" not in told, "the third of two rows"
    assert not any(line.endswith(" ") for line in told.splitlines())
