"""What all commands share: messages, broken pipes, interruption, output files, the cache folder."""

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
    """Raise KeyboardInterrupt on the first SIGTERM, which clusters send before they take a machine away.

    Further signals are ignored, so that the clean-up is not interrupted: a second SIGTERM; under torchrun,
    which forwards signals that its processes have received already, a second SIGINT; and SIGCHLD, for which
    torch's handler raises an error if the same signal has ended a process that decodes images.
    """
    if threading.current_thread() is not threading.main_thread():  # other threads cannot handle signals
        yield
        return
    under_torchrun = "LOCAL_RANK" in os.environ
    handled = [signal.SIGTERM]
    if under_torchrun and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
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
        if not (under_torchrun and interrupted):
            for number, handler in before.items():
                if handler is not None:  # None was not set from Python, which cannot restore it
                    signal.signal(number, handler)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: with SIG_IGN Python would report a signal that arrives while handlers are changed."""


_LONGEST = 2000  # characters of an error message


class OutputLost(Exception):
    """Failure to write to standard output.

    Attributes:
        reader_left: Whether the reader of the pipe has ended, as `head` does when it has seen enough.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output: cannot be written: {error.strerror or in_one_line(error)}")
        self.reader_left = isinstance(error, BrokenPipeError)


class _Stream:
    """Proxy of a standard stream that handles errors of writing and flushing.

    After the first error it writes to the null device, so that nothing fails again when Python ends.

    Args:
        stream: Standard stream.
        raises: Whether to raise OutputLost after an error.
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
            with suppress(OSError), Path(os.devnull).open("w") as null:
                os.dup2(null.fileno(), self._stream.fileno())
            if self._raises:
                raise OutputLost(error) from None


@contextmanager
def standard_streams() -> Iterator[None]:
    """Make standard output and error robust while the context lasts.

    Characters that the encoding of a stream lacks are replaced. If standard error cannot be written to,
    messages are lost and the command continues; if standard output cannot be, `OutputLost` is raised. A
    stream that was closed before the command started is opened on the null device, so that no file opened
    later gets its descriptor.
    """
    before = sys.stdout, sys.stderr
    for descriptor in range(3):
        with suppress(OSError):
            os.fstat(descriptor)
            continue
        os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, which is this one
    sys.stdout = _robust(sys.stdout, raises=True)
    sys.stderr = _robust(sys.stderr, raises=False)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def notes() -> Iterator[None]:
    """Print each of the package's own warnings once, as a note of one line; leave other warnings alone."""
    printed: set[str] = set()
    with warnings.catch_warnings():
        before = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
            if not isinstance(message, FormatNote):
                before(message, category, *where, **options)
            elif str(message) not in printed:
                printed.add(str(message))
                say(f"note: {message}")

        warnings.showwarning = show
        warnings.simplefilter("always", FormatNote)
        yield


def _robust(stream: TextIO | None, *, raises: bool) -> TextIO:
    if stream is None:  # closed before the command started
        stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open until the process ends
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors=SUBSTITUTE)
    return cast(TextIO, _Stream(stream, raises=raises))


def cache_folder(option: Path | None) -> Path:
    """Return the folder for downloads and decoded images.

    The default is `nas-recalib` in the user's cache folder. If the user has no home directory, or one that
    cannot be written to (as in some containers and cluster jobs), it is a temporary folder, and a message
    says so.

    Args:
        option: Value of --cache-dir.

    Raises:
        InputError: If there is no temporary folder either.
    """
    if option is not None:
        return option
    folder = _user_cache()
    if folder and _is_usable(folder):
        return folder
    problem = f"{folder} cannot be created" if folder else "no home directory is known"
    temporary = _temporary_folder(f"cache-dir: {problem}", "name a folder with --cache-dir")
    say(f"{problem}: downloads are kept in {temporary} (--cache-dir names another folder)")
    return temporary


def provide_home() -> None:
    """Set HOME to a temporary folder if the user has no home directory, which Ray needs when imported.

    Raises:
        InputError: If there is no temporary folder either.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(_temporary_folder("ray: no home directory is known", "set HOME"))


def _user_cache() -> Path | None:
    """Return the default cache folder by the XDG base directory specification; ignore a relative path."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    with suppress(RuntimeError):  # neither HOME nor a passwd entry
        base = base if base.is_absolute() else Path.home() / ".cache"
    return base / "nas-recalib" if base.is_absolute() else None


def _is_usable(folder: Path) -> bool:
    """Return whether a folder exists (it may be read-only) or could be created."""
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    with suppress(OSError):  # a link into another user's folder
        return nearest.is_dir() and (nearest == folder or os.access(nearest, os.W_OK | os.X_OK))
    return False


def _temporary_folder(problem: str, advice: str) -> Path:
    """Return a temporary folder that belongs to this user.

    Raises:
        InputError: If there is none; the message is the problem, the reason and the advice.
    """
    reason = "it belongs to another user"
    try:
        folder = Path(tempfile.gettempdir()) / f"nas-recalib-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()  # another user could have put a link there
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
            return folder
    except OSError as error:
        reason = error.strerror or str(error)
    raise InputError(f"{problem}, and there is no temporary folder ({reason}); {advice}")


def say(line: str) -> None:
    """Print a message to standard error; under torchrun, only the main process prints."""
    if os.environ.get("RANK", "0") == "0":
        print(printable(line), file=sys.stderr, flush=True)


def print_error(line: str) -> None:
    """Print an error to standard error; under torchrun every process does, as each may fail differently."""
    rank = os.environ.get("RANK", "0")
    text = printable(line if rank == "0" else f"process {rank}: {line}")
    if len(text) > _LONGEST:  # keep both ends: the place of the error, and the advice
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    print(text, file=sys.stderr, flush=True)


def require_output(path: Path | None, force: bool) -> None:
    """Check before long work that an output file can be written.

    Args:
        path: Path of the file; None if the user gave none.
        force: Whether the file may be overwritten.

    Raises:
        InputError: If the file cannot be written, or exists and may not be overwritten.
    """
    from nas_recalib.files import require_writable

    if path is None:
        return
    require_writable(path)
    if path.exists() and not force:
        raise InputError(f"{path}: {EXISTS}")


def write_output(path: Path, content: str) -> None:
    """Write a file that the user asked for, and say so on standard error."""
    from nas_recalib.files import write_atomically

    write_atomically(path, content)
    say(f"wrote {path}")


def print_json(content: object) -> None:
    print(json.dumps(content, indent=2))


def print_result(as_json: bool, content: Callable[[], object], table: Callable[[], Any]) -> None:
    """Print a result as JSON, or as a table.

    Args:
        as_json: Whether to print JSON.
        content: Function that returns what is printed as JSON.
        table: Function that returns the table.
    """
    from nas_recalib.report.terminal import print_table

    if as_json:
        print_json(content())
    else:
        print_table(table())


def silence_optuna() -> None:
    """Keep Optuna from logging anything but errors."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)


def say_remarks(*remarks: str) -> None:
    """Print remarks about the data to standard error; skip empty ones."""
    for remark in filter(None, remarks):
        say(f"data: {remark}")


def say_skipped(skipped: Sequence[str], most: int = 10) -> None:
    """Print which images were skipped to standard error, and of many the first `most`."""
    for image in skipped[:most]:
        say(f"skipped {image}")
    if len(skipped) > most:
        say(f"skipped {len(skipped) - most} more such images")
