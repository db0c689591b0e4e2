"""Plugins: import of modules that register a user's own operators."""

import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

from nas_recalib.errors import InputError, in_one_line
from nas_recalib.operators.catalog import names

GROUP = "nas_recalib.operators"


def load_plugins(plugins: Sequence[str]) -> None:
    """Import the installed plugins and the given ones, unless they are loaded already.

    Args:
        plugins: Dotted names of modules, also in the current directory, or paths of .py files.

    Raises:
        InputError: If a plugin cannot be imported, or registers no operator or an invalid one; it is named.
    """
    load_installed()
    for plugin in plugins:
        before = _registered()
        try:
            new = _load_file(Path(plugin).resolve()) if plugin.endswith(".py") else _load_module(plugin)
        except (Exception, SystemExit) as error:  # a user's module may raise anything
            raise InputError(f"plugin: {plugin} cannot be loaded: {in_one_line(error)}") from error
        if new and _registered() == before:
            raise InputError(f"plugin: {plugin} registers no operator")


@cache
def load_installed() -> None:
    """Import, once, the modules in the entry-point group of operators of installed packages.

    Raises:
        InputError: If one cannot be imported, or registers an invalid operator; its package is named.
    """
    for entry in entry_points(group=GROUP):
        try:
            entry.load()
        except (Exception, SystemExit) as error:
            package = entry.dist.name if entry.dist else "unknown"
            raise InputError(
                f"plugin: {entry.value} of the installed package {package} cannot be loaded: "
                f"{in_one_line(error)}"
            ) from error


def load_study_plugins(study: str, stored: Sequence[str], given: Sequence[str]) -> None:
    """Load the given plugins of a study, but never those that it stores: its author could run any code.

    Args:
        study: Name of the study.
        stored: Names of the plugins that the study was made with.
        given: Names of the plugins that the user trusts.

    Raises:
        InputError: If a plugin cannot be loaded, or if none are given and the study was made with some that
            are not loaded; they are named.
    """
    load_plugins(given)
    if not given:
        require_plugins(f"plugin: study {study!r}", stored)


def require_plugins(subject: str, stored: Sequence[str]) -> None:
    """Raise InputError, naming the plugins that a study or file was made with, unless they are loaded.

    Args:
        subject: Beginning of the message, which names the study or file.
        stored: Names of the plugins that it was made with.

    Raises:
        InputError: If a plugin is not loaded.
    """
    unknown = [plugin for plugin in stored if not _is_loaded(plugin)]
    if unknown:
        trust = " ".join(f"--plugin {plugin!r}" for plugin in unknown)
        raise InputError(
            f"{subject} was made with operators that are not loaded; "
            f"a plugin is a program: if you trust it, give {trust}"
        )


def _is_loaded(plugin: str) -> bool:
    if not plugin.endswith(".py"):
        return plugin in sys.modules
    path = Path(plugin)
    module = sys.modules.get(path.stem)
    return module is not None and Path(module.__file__ or "").resolve() == path.resolve()


def _registered() -> int:
    return len(names("convolution")) + len(names("recalibration"))


def _load_module(name: str) -> bool:
    """Import a module and return whether it was not loaded before."""
    new = name not in sys.modules
    _add_to_path(Path.cwd())
    import_module(name)
    return new


def _load_file(path: Path) -> bool:
    """Import a file as the module of its name, for pickling, and return whether it was not loaded before."""
    loaded = sys.modules.get(path.stem)
    if loaded is not None:
        if Path(loaded.__file__ or "").resolve() == path:
            return False
        raise ImportError(f"another module named {path.stem!r} is loaded already; rename the file")
    other = find_spec(path.stem)
    if path.stem in sys.stdlib_module_names or (other and Path(other.origin or "").resolve() != path):
        raise ImportError(f"{path.stem!r} is the name of another module; rename the file")
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    _add_to_path(path.parent)
    sys.modules[path.stem] = module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return True


def _add_to_path(folder: Path) -> None:
    """Append a folder to the import path, last, so that its files do not shadow a library."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
