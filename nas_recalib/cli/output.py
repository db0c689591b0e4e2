"""Where what is said goes, and where downloads are kept."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def cache_folder(given: Path | None) -> Path:
    if given is not None:
        return given
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nas-recalib"


def say(line: str) -> None:
    """To standard error, once however many processes torchrun started."""
    if os.environ.get("RANK", "0") == "0":
        _tell(line)


def complain(line: str) -> None:
    """To standard error, by every process: each may have a trouble of its own."""
    rank = os.environ.get("RANK", "0")
    _tell(line if rank == "0" else f"process {rank}: {line}")


def _tell(line: str) -> None:
    from nas_recalib.report.terminal import printable  # late, with rich

    print(printable(line), file=sys.stderr, flush=True)


def print_json(content: object) -> None:
    print(json.dumps(content, indent=2))


def say_skipped(skipped: Sequence[str], most: int = 10) -> None:
    """Names images that were left out."""
    for image in skipped[:most]:
        say(f"skipped {image}")
    if len(skipped) > most:
        say(f"skipped {len(skipped) - most} more such images")
