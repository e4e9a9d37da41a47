"""Which of the repository's files a module executes, found from its syntax tree."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent


def executed_files(module: Path) -> set[str]:
    """The module and all it imports from this repository, directly or not, at any depth of its code.

    The templates that they name are among them. A package's `__init__.py` counts where it holds more than a docstring.
    """
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported(ast.parse(path.read_text(encoding="utf-8")))
    templates = {template for path in found for template in _templates(path)}
    return {str(path.relative_to(ROOT)) for path in found | templates if path.suffix != ".py" or _has_code(path)}


def _imported(tree: ast.AST) -> list[Path]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    paths: list[Path] = []
    for name in names:
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            base = ROOT.joinpath(*parts[:depth])
            paths += [path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()]
    return paths


def _templates(module: Path) -> set[Path]:
    """The templates beside a module that it names."""
    constants = (node.value for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Constant))
    return {module.parent / value for value in constants if isinstance(value, str) and value.endswith(".j2")}


def _has_code(path: Path) -> bool:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return path.name != "__init__.py" or any(not isinstance(node, ast.Expr) for node in body)
