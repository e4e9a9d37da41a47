"""A section of `params.yaml` as a command writes it: checked, as YAML, and in the place of the one before."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.lib.files.errors import ParamsError
from stages.lib.files.writing import new_file
from stages.lib.plumbing.params import PARAMS, Params, parse_params, read_params


def section_as_yaml(name: str, content: Mapping[str, Any]) -> str:
    """A section as it is pasted into `params.yaml`. Raises ParamsError if it would be refused there."""
    yaml = YAML()
    yaml.width = 1_000_000  # a folded file name is hard to read, and to search for
    stream = io.StringIO()
    yaml.dump({name: dict(content)}, stream)
    read_back = YAML(typ="safe", pure=True).load(stream.getvalue())[name]
    try:
        TypeAdapter(get_type_hints(Params, include_extras=True)[name]).validate_python(read_back)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        keys = [name, *map(str, first["loc"][1:])]  # the first is pydantic's tag of the union
        raise ParamsError(f"{'.'.join(keys)}: got {first['input']!r}: {first['msg']}") from None
    return stream.getvalue()


def replace_section(name: str, section: str, path: Path = PARAMS) -> None:
    """Put a section in the place of the one of that name; all other bytes of the file stay.

    Raises ParamsError, and leaves the file as it was, if the params are then wrong as a whole.
    """
    before = read_params(path)
    after = _replaced(before, name, section, path)
    parse_params(after, path)
    with new_file(path.resolve()) as temporary:  # the file that a link leads to, not the link
        temporary.write_bytes(after.encode("utf-8"))


def _replaced(text: str, name: str, section: str, path: Path) -> str:
    """The text of a file with a section replaced. Raises ParamsError if the section has no lines of its own."""
    try:
        content = YAML().load(text)
        begins = sorted(content.lc.key(key)[0] for key in content)
        begin = content.lc.key(name)[0]
    except (YAMLError, AttributeError, KeyError, TypeError):
        raise ParamsError(f"{path}: has no section {name} that can be replaced; paste the printed one") from None
    lines = text.splitlines(keepends=True)
    end = next((line for line in begins if line > begin), len(lines))
    while end > begin + 1 and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1  # empty lines and comments at the margin belong to the next section
    line_end = "\r\n" if lines[begin].endswith("\r\n") else "\n"
    after = "".join([*lines[:begin], section.replace("\n", line_end), *lines[end:]])
    others = {key: value for key, value in _plain(text).items() if key != name}
    if {key: value for key, value in _plain(after).items() if key != name} != others:
        raise ParamsError(f"{path}: {name} shares lines with other sections; paste the printed section instead")
    return after


def _plain(text: str) -> dict[str, Any]:
    try:
        content = YAML(typ="safe", pure=True).load(text)
    except YAMLError:  # with the section, an anchor may have gone that others refer to
        content = None
    return content if isinstance(content, dict) else {}
