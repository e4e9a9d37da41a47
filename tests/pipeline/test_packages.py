"""The rules of the library's packages, read from its imports."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT
from imports import LIBRARY, PACKAGES, imported, package_of
from ruamel.yaml import YAML

from stages.lib.plumbing.items import Section
from stages.lib.plumbing.params import load_params

MODULES = sorted(path for path in LIBRARY.rglob("*.py") if path.name != "__init__.py")
SCRIPTS = sorted(path for path in (ROOT / "stages").glob("*.py") if path.name != "__init__.py")
WITHOUT_TYPES = {path: {other for other in imported(path) if other.is_relative_to(LIBRARY)} for path in MODULES}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT / "stages"))


def test_a_package_has_4_to_14_modules() -> None:
    assert sorted(path.name for path in LIBRARY.iterdir() if path.is_dir() and path.name != "__pycache__") == sorted(
        PACKAGES
    )
    for package in PACKAGES:
        assert 4 <= sum(package_of(path) == package for path in MODULES) <= 14, package
    assert all(package_of(path) in PACKAGES for path in MODULES)  # none lies beside the packages


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_package_imports_only_from_those_before_it(path: Path) -> None:
    allowed = PACKAGES[: PACKAGES.index(str(package_of(path))) + 1]
    assert {package_of(other) for other in WITHOUT_TYPES[path]} <= set(allowed)


def test_no_module_is_in_a_circle() -> None:
    left = dict(WITHOUT_TYPES)
    while free := [path for path, others in left.items() if not others & left.keys() - {path}]:
        for path in free:
            del left[path]
    assert not left


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_no_script_imports_a_script(path: Path) -> None:
    assert all(other.is_relative_to(LIBRARY) for other in imported(path, types=True) if other.name != "__init__.py")


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *sorted((ROOT / "studies").glob("*.yaml"))])
def test_the_plumbing_touches_no_figure(path: Path) -> None:
    """It hands the values of params.yaml on as they are: it adds none, changes none, and computes none from them."""
    params = load_params(path)
    assert params.model_dump(exclude_none=True) == YAML(typ="safe", pure=True).load(path.read_text())
    for section in [params, *(value for _, value in params if isinstance(value, Section))]:
        assert not type(section).model_computed_fields
        own = {name for kind in type(section).__mro__ if kind.__module__.startswith("stages") for name in vars(kind)}
        assert (
            not {name for name in own if not name.startswith("_")} - set(type(section).model_fields) - {"model_config"}
        )


def test_the_plumbing_has_no_defaults() -> None:
    for path in (LIBRARY / "plumbing").glob("*s.py"):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            for default in (keyword.value for keyword in call.keywords if keyword.arg == "default"):
                assert isinstance(default, ast.Constant)
                assert default.value is None
