"""Where what is said goes, and where downloads are kept."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from nas_recalib.errors import printable

_LONGEST = 2000  # of what is said at once


def cache_folder(given: Path | None) -> Path:
    if given is not None:
        return given
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nas-recalib"


def say(line: str) -> None:
    """To standard error, once however many processes torchrun started."""
    if os.environ.get("RANK", "0") == "0":
        print(printable(line), file=sys.stderr, flush=True)


def complain(line: str) -> None:
    """To standard error, by every process: each may have a trouble of its own."""
    rank = os.environ.get("RANK", "0")
    told = printable(line if rank == "0" else f"process {rank}: {line}")
    if len(told) > _LONGEST:  # both ends tell something: where it is, and what is allowed
        told = f"{told[: _LONGEST // 2]} ... {told[-_LONGEST // 2 :]}"
    print(told, file=sys.stderr, flush=True)


def print_json(content: object) -> None:
    print(json.dumps(content, indent=2))


def say_remarks(*remarks: str) -> None:
    """Print what the user should know about the images, if there is anything."""
    for remark in filter(None, remarks):
        say(f"data: {remark}")


def say_skipped(skipped: Sequence[str], most: int = 10) -> None:
    """Names images that were left out."""
    for image in skipped[:most]:
        say(f"skipped {image}")
    if len(skipped) > most:
        say(f"skipped {len(skipped) - most} more such images")
