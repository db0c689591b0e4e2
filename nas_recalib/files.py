"""Reading and writing the files people see: safely, whole or not at all."""

import contextlib
import json
import os
import tempfile
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from nas_recalib.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


class StrictModel(BaseModel):
    """A file's keys and their types; anything else is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader, which also refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for index, key in enumerate(keys) if key in keys[:index]), None)
        if twice is not None:
            raise yaml.MarkedYAMLError(
                problem=f"the key {twice!r} is given twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, model: type[Model]) -> Model:
    """Reads a YAML file into a model.

    Raises:
        InputError: If it cannot be read or has another form; file, key and what is allowed are named.
    """
    return parse_yaml(_read_text(path), model, str(path))


def read_json(path: Path, model: type[Model]) -> Model:
    """Reads a JSON file into a model.

    Raises:
        InputError: If it cannot be read or has another form; file, key and what is allowed are named.
    """
    text = _read_text(path)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    return _validated(data, model, str(path))


def parse_yaml(text: str, model: type[Model], origin: str) -> Model:
    """Reads YAML text into a model; `origin` stands before what is wrong with it.

    Raises:
        InputError: If it has another form.
    """
    try:
        data = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "not YAML"
        mark = getattr(error, "problem_mark", None)
        raise InputError(f"{origin}:{mark.line + 1 if mark else 1}: {problem}") from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # what only looks like a date, endless nesting
        raise InputError(f"{origin}: {error}") from error
    return _validated(data, model, origin)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not text'}"
        ) from error


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
    _refuse_other_than_file(path)
    try:
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader, or a crash, finds the old one or the whole new one.

    Raises:
        InputError: If the folder cannot be written to.
    """
    _refuse_other_than_file(path)
    path = path.resolve()  # a link goes on pointing at the file
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # of which others may write one, too
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def _refuse_other_than_file(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: cannot be written: not a regular file")


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
