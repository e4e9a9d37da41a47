"""Docstrings of a package as documents with summaries, read with `ast`, never imported.

PEP 257 asks for a summary line, a blank line, and then the elaborate description. The first line,
where it ends in a period, is the summary; the description, up to the first section (Parameters,
Returns, Examples …) and without directives, is the document.
"""

import ast
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from stages.lib.files.errors import UserError
from stages.lib.files.rows import Row

_UNDERLINE = re.compile(r"^[-=~]{3,}$")


def docstring_rows(wheel: Path) -> list[Row]:
    """The distinct (text, summary) pairs of a wheel's modules, its tests left out, as rows of documents.

    Raises UserError for a file that is not a wheel or is damaged, and for a module that is not Python.
    """
    if not zipfile.is_zipfile(wheel):
        raise UserError(f"{wheel.name}: not a wheel; format docstrings needs one")
    found: dict[tuple[str, str], Row] = {}
    with zipfile.ZipFile(wheel) as archive:
        for module in sorted(archive.namelist()):
            if module.endswith(".py") and "tests" not in module.split("/"):
                for item in _in_module(_parsed(archive, module, wheel.name), module):
                    found.setdefault((item["text"], item["summary"]), item)
    return list(found.values())


def _parsed(archive: zipfile.ZipFile, module: str, wheel: str) -> ast.Module:
    try:
        return ast.parse(archive.read(module))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # a null byte; code nested too deeply
        line = getattr(error, "lineno", None)
        place = f"{module}, line {line}" if line else module
        raise UserError(
            f"{wheel}: {place}: not Python {sys.version_info.major}.{sys.version_info.minor}; "
            "name another wheel under documents in params.yaml"
        ) from None
    except (zipfile.BadZipFile, zlib.error):
        raise UserError(f"{wheel}: {module} is damaged; fetch the wheel again") from None


def _in_module(tree: ast.AST, prefix: str) -> Iterator[Row]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name, lines = f"{prefix}:{node.name}", (ast.get_docstring(node) or "").splitlines()
            summed_up = len(lines) > 2 and lines[0].endswith((".", "。", "．", "｡", "।", "۔")) and not lines[1].strip()
            if summed_up and (text := _description(lines[2:])):
                yield {"document": name, "text": text, "summary": lines[0].strip()}
            yield from _in_module(node, name)


def _description(lines: list[str]) -> str:
    """Paragraphs up to the first section, without directives and their indented blocks."""
    paragraphs: list[list[str]] = [[]]
    in_directive = False
    for number, line in enumerate(lines):
        following = lines[number + 1].strip() if number + 1 < len(lines) else ""
        if _UNDERLINE.match(following):
            break
        if line.startswith(".. "):
            in_directive = True
        elif line.strip() and not line.startswith(" "):
            in_directive = False
        if in_directive:
            continue
        if line.strip():
            paragraphs[-1].append(line.strip())
        elif paragraphs[-1]:
            paragraphs.append([])
    return "\n\n".join(" ".join(paragraph) for paragraph in paragraphs if paragraph)
