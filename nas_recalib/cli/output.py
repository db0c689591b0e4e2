"""Standard output and error, interruptions, files that the user names, and the cache folder."""

import json
import os
import signal
import stat
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import Any, TextIO, cast

from nas_recalib.errors import EXISTS, SUBSTITUTE, FormatNote, InputError, in_one_line, printable


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM, by which clusters take machines away, do what Ctrl-C does, once.

    Nothing disturbs the clean-up that a signal has begun: not a second SIGTERM, nor under torchrun, which may
    send on what its processes have received already, a second SIGINT; nor torch's handler of SIGCHLD, which
    raises an error where the same signal has ended a process that decodes images.
    """
    if threading.current_thread() is not threading.main_thread():  # the others cannot handle signals
        yield
        return
    launched = "LOCAL_RANK" in os.environ
    handled = [signal.SIGTERM]
    if launched and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        handled.append(signal.SIGINT)
    interrupted = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        for number in handled:
            signal.signal(number, _ignore)
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _ignore)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in handled}
    try:
        yield
    finally:
        if not (launched and interrupted):
            for number, handler in before.items():
                if handler is not None:  # not set by Python, and so not to be set by it
                    signal.signal(number, handler)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing; Python complains of a signal that has arrived when SIG_IGN is set."""


_LONGEST = 2000  # of what is said at once


class OutputLost(Exception):
    """Standard output takes no more.

    Attributes:
        reader_left: Whether whoever read it has ended, as `head` does when it has seen enough.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output: cannot be written: {error.strerror or in_one_line(error)}")
        self.reader_left = isinstance(error, BrokenPipeError)


class _Stream:
    """A standard stream that is asked for everything but to write and to flush.

    From the first failure on it writes to nowhere, so that nothing fails again when Python ends.
    """

    def __init__(self, stream: TextIO, *, raises: bool) -> None:
        self._stream = stream
        self._raises = raises

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, call: Callable[..., object], *arguments: str) -> None:
        try:
            call(*arguments)
        except OSError as error:
            with suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
            if self._raises:
                raise OutputLost(error) from None


@contextmanager
def standard_streams() -> Iterator[None]:
    """Prevent a character or a reader that has gone from ending a command while it works.

    Characters that the encoding of a stream lacks are printed by a substitute. Where standard error takes no
    more, progress messages are lost and the work continues; where standard output takes no more, `OutputLost`
    is raised. A stream that was closed before the command began leads to the null device, so that no file
    opened later takes its descriptor.
    """
    before = sys.stdout, sys.stderr
    for descriptor in range(3):
        with suppress(OSError):
            os.fstat(descriptor)
            continue
        os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free, which is this one
    sys.stdout = _prepared(sys.stdout, raises=True)
    sys.stderr = _prepared(sys.stderr, raises=False)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def notes() -> Iterator[None]:
    """Print the package's own warnings as notes of one line, once each, and leave others as they are."""
    said: set[str] = set()
    with warnings.catch_warnings():
        before = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
            if not isinstance(message, FormatNote):
                before(message, category, *where, **options)
            elif str(message) not in said:
                said.add(str(message))
                say(f"note: {message}")

        warnings.showwarning = show
        warnings.simplefilter("always", FormatNote)
        yield


def _prepared(stream: TextIO | None, *, raises: bool) -> TextIO:
    if stream is None:  # it was closed
        stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors=SUBSTITUTE)
    return cast(TextIO, _Stream(stream, raises=raises))


def cache_folder(given: Path | None) -> Path:
    """Return the folder for downloads and decoded images.

    Where none is given it is `nas-recalib` in the user's cache folder. A user of a container or a cluster job
    may have no home, or none to write to; a temporary folder takes its place then, which is said.

    Raises:
        InputError: If there is no temporary folder either.
    """
    if given is not None:
        return given
    folder = _user_cache()
    if folder and _can_be_had(folder):
        return folder
    why = f"{folder} cannot be made" if folder else "no home directory is known"
    temporary = _temporary_folder(f"cache-dir: {why}", "name a folder with --cache-dir")
    say(f"{why}: downloads are kept in {temporary} (--cache-dir names another folder)")
    return temporary


def provide_home() -> None:
    """Give a user without a home a temporary one, which Ray looks for when it is imported.

    Raises:
        InputError: If there is no temporary folder either.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(_temporary_folder("ray: no home directory is known", "set HOME"))


def _user_cache() -> Path | None:
    """Return the default folder, after the XDG base directory specification: a relative path is ignored."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    with suppress(RuntimeError):  # neither HOME nor a passwd entry
        base = base if base.is_absolute() else Path.home() / ".cache"
    return base / "nas-recalib" if base.is_absolute() else None


def _can_be_had(folder: Path) -> bool:
    """Return whether a folder is there, perhaps to be read alone, or could be made."""
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    with suppress(OSError):  # a link into a folder of others
        return nearest.is_dir() and (nearest == folder or os.access(nearest, os.W_OK | os.X_OK))
    return False


def _temporary_folder(why: str, instead: str) -> Path:
    """Return a folder of this user's alone among the temporary files, or refuse with what to do instead."""
    reason = "it is not a folder of this user's"
    try:
        folder = Path(tempfile.gettempdir()) / f"nas-recalib-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()  # whoever else can write there could have put a link in its place
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
            return folder
    except OSError as error:
        reason = error.strerror or str(error)
    raise InputError(f"{why}, and there is no temporary folder ({reason}); {instead}")


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


def require_output(path: Path | None, force: bool) -> None:
    """Refuse, before long work, to write a file that is there already or cannot be written.

    Args:
        path: Name of the file, if the user gave one.
        force: Whether it may be overwritten.

    Raises:
        InputError: If it may not, or cannot be written.
    """
    from nas_recalib.files import require_writable

    if path is None:
        return
    require_writable(path)
    if path.exists() and not force:
        raise InputError(f"{path}: {EXISTS}")


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
