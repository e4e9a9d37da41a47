"""The modules that a module imports, directly or not, and the packages of the library that it reaches."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "stages" / "lib"
PACKAGES = [
    *("files", "sources", "weights", "recipes", "inference", "pruning", "shrinking", "recovery"),
    *("evaluation", "figures", "reporting", "plumbing"),
]
"""The packages of the library, in the order in which they may import each other: only from those before."""


def imported(path: Path, types: bool = False) -> set[Path]:
    """The modules of this repository that a module imports, at any depth of its code; for types only if asked to."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not types:
        tree = _WithoutTypes().visit(tree)
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {file for name in names if (file := ROOT.joinpath(*name.split(".")).with_suffix(".py")).is_file()}


class _WithoutTypes(ast.NodeTransformer):
    """Removes what stands under `if TYPE_CHECKING`, which is never executed."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return [self.visit(other) for other in node.orelse] or ast.Pass()
        return self.generic_visit(node)


def package_of(module: Path) -> str | None:
    """The library's package that a module lies in; None for a script."""
    return module.relative_to(LIBRARY).parts[0] if module.is_relative_to(LIBRARY) else None


def reached(module: Path) -> set[Path]:
    """The module and all it imports, directly or not, but for the plumbing, on which no result depends."""
    found: set[Path] = set()
    waiting = {module}
    while waiting:
        path = waiting.pop()
        if path not in found and package_of(path) != "plumbing":
            found.add(path)
            waiting |= imported(path)
    return found


def code_deps(script: Path) -> set[str]:
    """A stage's dependencies in dvc.yaml: its script, and the folders of the library that it reaches."""
    packages = {package for module in reached(script) if (package := package_of(module))}
    return {str(script.relative_to(ROOT)), *(f"stages/lib/{package}" for package in packages)}
