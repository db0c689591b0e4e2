from small_study import CONFIG, small_study

from nas_recalib.report.page import study_page
from nas_recalib.study.summary import summarise


def test_the_page_stands_alone_and_escapes_names():
    study = small_study()
    study.set_user_attr("config", {**CONFIG.as_dict(), "data": "folder:<script>"})
    page = study_page(summarise(study))
    assert "folder:&lt;script&gt;" in page
    assert "src=" not in page.replace("src=null", "").split("<div")[0]
    assert "Best architecture, block by block (trial 1)" in page
