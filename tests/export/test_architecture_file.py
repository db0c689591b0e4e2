import pytest
import yaml
from small_study import small_study

from nas_recalib.architecture import Architecture
from nas_recalib.errors import InputError
from nas_recalib.export import export_architecture
from nas_recalib.study.statistics import write_confirmation
from nas_recalib.study.summary import summarise


def test_export_writes_the_best_trial_or_the_given_one(tmp_path):
    summary = summarise(small_study())
    assert export_architecture(summary, tmp_path / "best.yaml").number == 1
    assert Architecture.load(tmp_path / "best.yaml") == Architecture.of("resnet20", "psconv")
    export_architecture(summary, tmp_path / "two.yaml", 2)
    assert Architecture.load(tmp_path / "two.yaml") == Architecture.of("resnet20", "scconv")
    text = (tmp_path / "two.yaml").read_text()
    assert "study: s" in text
    assert "accuracy: 0.6" in text
    with pytest.raises(InputError, match="trial: 4 is not a trained trial of s; there are 1, 2, 0, 3"):
        export_architecture(summary, tmp_path / "no.yaml", 4)
    assert not (tmp_path / "no.yaml").exists()


def test_export_prefers_confirmed_trials_and_writes_their_results(tmp_path):
    study = small_study()
    for seed, accuracy in ((1, 0.5), (2, 0.5), (3, 0.56)):
        write_confirmation(study, 2, seed, {"accuracy": accuracy})
    assert export_architecture(summarise(study), tmp_path / "best.yaml").number == 2
    origin = yaml.safe_load((tmp_path / "best.yaml").read_text())["origin"]
    assert origin["accuracy"] == 0.6
    assert origin["confirmed"]["mean"] == pytest.approx(0.52)
    assert origin["confirmed"]["accuracies"] == {1: 0.5, 2: 0.5, 3: 0.56}
    assert Architecture.load(tmp_path / "best.yaml") == Architecture.of("resnet20", "scconv")
