from pathlib import Path

import pytest

from nas_recalib.costs import Budget
from nas_recalib.errors import InputError
from nas_recalib.search.options import Request, refuse_idle

NOTHING = Request(**dict.fromkeys(Request.__dataclass_fields__))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "given", "objective"),
    [("latency_table", Path("t.json"), "latency"), ("batch", 4, "latency"), ("batch", 4, "memory")],
)
def test_an_objective_of_the_study_has_a_use_for_what_belongs_to_it(option, given, objective):
    request = Request(**{**vars(NOTHING), option: given})
    refuse_idle(request, Budget(), ["accuracy", objective])
    with pytest.raises(InputError, match="of no use without a limit"):
        refuse_idle(request, Budget(), ["accuracy", "macs"])
