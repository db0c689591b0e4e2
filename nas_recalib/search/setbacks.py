"""When a search has failed so often that it is not worth going on."""

from dataclasses import dataclass, field

from nas_recalib.errors import StopSearch
from nas_recalib.proxy.objective import Failure

_ERRORS_IN_A_ROW = 3
_FAILURES_IN_A_ROW = 10


@dataclass
class Setbacks:
    """Failures since a training ended well."""

    _failures: list[Failure] = field(default_factory=list)

    def add(self, failure: Failure) -> None:
        """Counts one.

        Raises:
            StopSearch: After too many in a row; of errors of the program the first is shown in full.
        """
        self._failures.append(failure)
        errors = self._failures[-_ERRORS_IN_A_ROW:]
        if len(errors) == _ERRORS_IN_A_ROW and all(one.kind == "error" for one in errors):
            told = f"{len(errors)} trials in a row ended in an error; the first"
            raise StopSearch(f"{told}:\n{errors[0].details}")
        if len(self._failures) >= _FAILURES_IN_A_ROW:
            raise StopSearch(f"{len(self._failures)} trials in a row failed, the last: {failure.message}")

    def clear(self) -> None:
        """Begins anew."""
        self._failures.clear()
