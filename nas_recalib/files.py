"""Reading of YAML and JSON files into strict models, and atomic writing of files."""

import contextlib
import errno
import json
import os
import re
import tempfile
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from nas_recalib.errors import InputError, in_one_line

Model = TypeVar("Model", bound=BaseModel)

_LONGEST_YAML = 2**20  # characters; this many take seconds to parse
_LONGEST_JSON = 2**28
_GREATEST = 2**63  # greatest whole number in YAML, where numbers may be too long to print
_LONGEST_NUMBER = 64  # characters of a whole number
_BASES = {"0o": 8, "0x": 16}


def path_argument(name: str, value: object) -> Path:
    """Return an argument that may be text or a path as a path.

    Raises:
        InputError: If it is neither; the argument is named.
    """
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"{name}: {value!r} is neither text nor a path")
    return Path(value)


class StrictModel(BaseModel):
    """Model of a file that refuses unknown keys and other types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# Plain scalars of the core schema of YAML 1.2 (section 10.3.2): tag, form, first characters.
_CORE_SCHEMA = {
    "null": (re.compile(r"(~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    "bool": (re.compile(r"(true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")),
    "int": (re.compile(r"([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"), list("-+0123456789")),
    "float": (
        re.compile(
            r"([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z"
        ),
        list("-+.0123456789"),
    ),
}
_CUT = re.compile(r"\(\s*[a-z][a-z0-9_]*\s*=[^()]*\Z")  # arguments of a choice cut at a comma
_WHOLE_CHOICE = re.compile(r"[^()\n]*\([^()\n]*\)[^,\]}\n]*")


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader with the core schema of YAML 1.2 instead of YAML 1.1.

    Whole numbers are decimal even with leading zeros (032 is 32), or 0o40 or 0x20; 25e-2, .5 and 1e3 are
    numbers; only true and false are booleans. Everything else is text: no, on, 1_000, 1:30 and 2024-01-01.
    Duplicate keys, merged keys, numbers beyond 64 bits and choices cut at a comma because they are not quoted
    are refused.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self._refuse_cut_choices(node, [item for pair in node.value for item in pair])
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            seen: set[Any] = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if key in seen:
                    self._refuse(key_node, f"the key {key!r} is given twice")
                seen.add(key)
        return mapping

    def construct_sequence(self, node: yaml.SequenceNode, deep: bool = False) -> list[Any]:
        self._refuse_cut_choices(node, node.value)
        return super().construct_sequence(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Keep `<<` as a key, to be refused: merging may double the content with every line."""

    def construct_yaml_bool(self, node: yaml.ScalarNode) -> bool:
        return self._text(node, "bool", "true or false").lower() == "true"

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = self._text(node, "int", "a whole number")
        number = _GREATEST if len(text) > _LONGEST_NUMBER else int(text, _BASES.get(text[:2], 10))
        if abs(number) >= _GREATEST:
            self._refuse(node, "a whole number has more than 64 bits")
        return number

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        text = self._text(node, "float", "a number").lower()
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))

    def _text(self, node: yaml.ScalarNode, tag: str, expected: str) -> str:
        """Return the text of a scalar; refuse one that a tag such as `!!int` declares to be another type."""
        text = str(self.construct_scalar(node))
        if not _CORE_SCHEMA[tag][0].match(text):
            self._refuse(node, f"{text!r} is not {expected}")
        return text

    def _refuse_cut_choices(self, owner: yaml.CollectionNode, items: Sequence[yaml.Node]) -> None:
        """Refuse `[scconv(r=2, pooling=max)]`: inside brackets, YAML ends unquoted text at a comma."""
        for item in items if owner.flow_style else ():
            if isinstance(item, yaml.ScalarNode) and item.style is None and _CUT.search(item.value):
                mark = item.start_mark
                whole = _WHOLE_CHOICE.match(mark.buffer or "", mark.pointer)
                example = f', as in "{whole[0].strip()}"' if whole else ""
                self._refuse(item, f"{item.value!r} ends at a comma: put the whole choice in quotes{example}")

    def _refuse(self, node: yaml.Node, problem: str) -> None:
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, quoting text that YAML 1.1 or 1.2 would read otherwise: no, y, 08, 1e3."""


_StrictLoader.yaml_implicit_resolvers = {}  # drops those of YAML 1.1
for _tag, (_form, _first) in _CORE_SCHEMA.items():
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _form, _first)
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _form, _first)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"[yYnN]\Z"), list("yYnN"))
_StrictLoader.add_constructor("tag:yaml.org,2002:bool", _StrictLoader.construct_yaml_bool)
_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_yaml_int)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _StrictLoader.construct_yaml_float)


def dump_yaml(content: Mapping[str, Any]) -> str:
    """Return a mapping as YAML that readers of YAML 1.1 and of YAML 1.2 understand alike.

    Raises:
        InputError: If a value is not plain data (text, numbers, booleans, None, lists and mappings).
    """
    try:
        return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=100)
    except yaml.representer.RepresenterError as error:
        raise InputError(f"{error.args[-1]!r} cannot be written to a YAML file") from error


def read_yaml(path: Path, model: type[Model]) -> Model:
    """Read a YAML file into a model, under the core schema of YAML 1.2 (032 is 32, and `no` is text).

    Raises:
        InputError: If it cannot be read or has another form; file, key and what is allowed are named.
    """
    return parse_yaml(_read_text(path, _LONGEST_YAML), model, str(path))


def read_json(path: Path, model: type[Model]) -> Model:
    """Read a JSON file into a model.

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
    """Read YAML text into a model.

    Args:
        text: Content of a file.
        model: Model of the content.
        origin: Source of the text, for error messages.

    Raises:
        InputError: If the text has another form; key and what is allowed are named.
    """
    if len(text) > _LONGEST_YAML:
        raise InputError(f"{origin}: longer than {_LONGEST_YAML:,} characters")
    try:
        data = yaml.load(text, Loader=_StrictLoader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = text[error.position : error.position + 1]
        raise InputError(f"{origin}:{line}: YAML does not allow the character {character!r}") from error
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "not YAML"
        if r"character '\t'" in problem:
            problem = "YAML allows no tabs for indentation, only spaces"
        mark = getattr(error, "problem_mark", None)
        raise InputError(f"{origin}:{mark.line + 1 if mark else 1}: {problem}") from error
    except RecursionError as error:
        raise InputError(f"{origin}: nested too deeply") from error
    except Exception as error:  # PyYAML raises others on malformed dates and numbers
        raise InputError(f"{origin}: not YAML: {in_one_line(error)}") from error
    return _validated(data, model, origin)


def _read_text(path: Path, longest: int) -> str:
    try:
        if _is_special(path):
            raise OSError(errno.EINVAL, "not a regular file")
        if path.stat().st_size > 4 * longest:  # up to 4 bytes per character
            raise OSError(errno.EFBIG, f"longer than {longest:,} characters")
        return path.read_text(encoding="utf-8-sig")  # some editors put a byte order mark before UTF-8
    except (OSError, ValueError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else _reason(error)
        raise InputError(f"{path}: cannot be read: {reason}") from error


def _validated(data: object, model: type[Model], origin: str) -> Model:
    if not isinstance(data, dict):
        raise InputError(f"{origin}: expected keys and values, found {_kind(data)}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{origin}: {_first_problem(error, model)}") from error


def require_writable(path: Path) -> None:
    """Check that a file can be written, before long work whose result it will hold.

    Raises:
        InputError: If the folder cannot be written to.
    """
    with _write_errors(path), tempfile.TemporaryFile(dir=_target(path).parent):
        pass


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file atomically: a reader, or a crash, finds either the old or the new content.

    Raises:
        InputError: If the folder cannot be written to.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    with _write_errors(path):
        target = _target(path)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")  # one per process
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
    """Return the file to write, to which a link still points afterwards."""
    if path.is_dir() or _is_special(path):
        raise OSError(errno.EINVAL, "not a regular file")
    return path.resolve()


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        raise InputError(f"{path}: cannot be written: {_reason(error)}") from error


def _is_special(path: Path) -> bool:
    """Return whether a path is a pipe, a socket or a device, which may block for ever."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    problems = error.errors()  # a misspelt key is also a missing one: report the misspelling
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        fields = _inner_model(model, problem["loc"][:-1])
        allowed = ", ".join(fields.model_fields)
        return f"unknown key {key!r}; allowed: {allowed}"
    if problem["type"] == "missing":
        return f"missing key {key!r}"
    if problem["type"] in ("model_type", "dict_type"):  # pydantic's message names a class of this package
        return f"{key}: expected keys and values, found {_kind(problem['input'])}"
    message = problem["msg"].removeprefix("Value error, ")
    if not key:
        return message
    quotes = problem["type"] == "string_type" and isinstance(problem["input"], int | float)
    hint = "; put it in quotes if it is meant as text" if quotes else ""
    return f"{key}: {message[0].lower()}{message[1:]}, found {_kind(problem['input'])}{hint}"


def _inner_model(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the model at a path of keys, through optional fields, lists and dictionaries of models."""
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
