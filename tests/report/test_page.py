import re

from small_study import CONFIG, small_study

from nas_recalib.report.study_page import study_page
from nas_recalib.study.statistics import write_confirmation
from nas_recalib.study.summary import summarise


def test_the_page_stands_alone_and_escapes_names():
    study = small_study()
    study.set_user_attr("config", {**CONFIG.as_dict(), "data": "folder:<script>"})
    page = study_page(summarise(study))
    assert "folder:&lt;script&gt;" in page
    assert not re.search(r"<(script|link|img)[^>]* (src|href)=", page)
    assert "Best architecture, block by block (trial 1)" in page


def test_what_was_confirmed_is_on_the_page():
    study = small_study()
    for seed, accuracy in ((1, 0.61), (2, 0.63), (3, 0.62)):
        write_confirmation(study, 1, seed, {"accuracy": accuracy})
    page = study_page(summarise(study))
    assert "<td class=n>0.6200 ± 0.0248 (3)</td>" in page
    assert "only trial 1 was confirmed, with 3 new seeds" in page
    assert '"name":"confirmed"' in page
    assert '"symmetric":false' in page
    assert '"name":"confirmed"' not in study_page(summarise(small_study()))
