"""Reading and writing the files people see: safely, whole or not at all."""

import contextlib
import errno
import json
import os
import tempfile
from collections import Counter
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from nas_recalib.errors import InputError, in_one_line

Model = TypeVar("Model", bound=BaseModel)

_LONGEST_YAML = 2**20  # characters; which takes seconds to parse
_LONGEST_JSON = 2**28
_GREATEST = 2**63  # of whole numbers in YAML, which may have so many digits that they cannot be printed


class StrictModel(BaseModel):
    """A file's keys and their types; anything else is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, which also refuses a key given twice, merged keys and numbers beyond all counting."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            keys = Counter(self.construct_object(key, deep=True) for key, _ in node.value)
            self._refuse(node, f"the key {keys.most_common(1)[0][0]!r} is given twice")
        return mapping

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Leaves `<<` as it is, to be refused: what it merges may double with every line."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number: int = super().construct_yaml_int(node)
        if abs(number) >= _GREATEST:
            self._refuse(node, "a whole number is beyond all counting")
        return number

    def _refuse(self, node: yaml.Node, problem: str) -> None:
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_yaml_int)


def read_yaml(path: Path, model: type[Model]) -> Model:
    """Reads a YAML file into a model.

    Raises:
        InputError: If it cannot be read or has another form; file, key and what is allowed are named.
    """
    return parse_yaml(_read_text(path, _LONGEST_YAML), model, str(path))


def read_json(path: Path, model: type[Model]) -> Model:
    """Reads a JSON file into a model.

    Raises:
        InputError: If it cannot be read or has another form; file, key and what is allowed are named.
    """
    text = _read_text(path, _LONGEST_JSON)
    try:
        data = json.loads(text)
    except RecursionError as error:
        raise InputError(f"{path}: nested too deeply") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    return _validated(data, model, str(path))


def parse_yaml(text: str, model: type[Model], origin: str) -> Model:
    """Reads YAML text into a model; `origin` stands before what is wrong with it.

    Raises:
        InputError: If it has another form.
    """
    if len(text) > _LONGEST_YAML:
        raise InputError(f"{origin}: longer than {_LONGEST_YAML:,} characters")
    try:
        data = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "not YAML"
        mark = getattr(error, "problem_mark", None)
        raise InputError(f"{origin}:{mark.line + 1 if mark else 1}: {problem}") from error
    except RecursionError as error:
        raise InputError(f"{origin}: nested too deeply") from error
    except Exception as error:  # PyYAML stumbles over what only looks like a date or a number
        raise InputError(f"{origin}: not YAML: {in_one_line(error)}") from error
    return _validated(data, model, origin)


def _read_text(path: Path, longest: int) -> str:
    try:
        if _is_strange(path):
            raise OSError(errno.EINVAL, "not a regular file")
        if path.stat().st_size > 4 * longest:  # bytes that a character may have
            raise OSError(errno.EFBIG, f"longer than {longest:,} characters")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = "not text" if isinstance(error, UnicodeDecodeError) else _reason(error)
        raise InputError(f"{path}: cannot be read: {reason}") from error


def _validated(data: object, model: type[Model], origin: str) -> Model:
    if not isinstance(data, dict):
        raise InputError(f"{origin}: expected keys and values, found {_kind(data)}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{origin}: {_first_problem(error, model)}") from error


def require_writable(path: Path) -> None:
    """Finds out before long work whether its result could be written.

    Raises:
        InputError: If the folder cannot be written to.
    """
    with _write_errors(path), tempfile.TemporaryFile(dir=_target(path).parent):
        pass


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader, or a crash, finds the old one or the whole new one.

    Raises:
        InputError: If the folder cannot be written to.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    with _write_errors(path):
        target = _target(path)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")  # others may write it, too
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


def _target(path: Path) -> Path:
    """The file to write: a link goes on pointing at it."""
    if path.is_dir() or _is_strange(path):
        raise OSError(errno.EINVAL, "not a regular file")
    return path.resolve()


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        raise InputError(f"{path}: cannot be written: {_reason(error)}") from error


def _is_strange(path: Path) -> bool:
    """Whether it is there, and something that may never end or never begin."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    problems = error.errors()  # a misspelt key is also a missing one: tell of the spelling
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        fields = _inner_model(model, problem["loc"][:-1])
        allowed = ", ".join(fields.model_fields)
        return f"unknown key {key!r}; allowed: {allowed}"
    if problem["type"] == "missing":
        return f"missing key {key!r}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]}, found {_kind(problem['input'])}" if key else message


def _inner_model(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that stands at a path of keys, through optional fields, lists and dictionaries of models."""
    found, in_dictionary = model, False
    for key in path:
        field = None if in_dictionary else found.model_fields.get(str(key))
        in_dictionary = field is not None and get_origin(field.annotation) is dict
        found = next(_models_in(field.annotation), found) if field else found
    return found


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _kind(value: object) -> str:
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "keys and values"
    return "nothing" if value is None else repr(value)
