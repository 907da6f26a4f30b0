"""Names of factories: declared lazily, found with hints, and honest about targets that are not there."""

from __future__ import annotations

import sys
import types

import pytest

from genzoo.core.errors import MissingDependencyError, RegistryError
from genzoo.core.registry import Registry


@pytest.fixture
def shapes() -> Registry:
    registry = Registry("shape")
    registry.lazy("square", "tests_shapes:Square", help="four sides", port="flat")
    registry.lazy("cube", "tests_shapes:Cube", port=("solid", "platonic"))
    registry.lazy("plain", "tests_shapes:Plain")
    return registry


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    found = types.ModuleType("tests_shapes")
    found.Square = type("Square", (), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tests_shapes", found)
    return found


def test_a_lazy_name_imports_its_module_when_it_is_asked_for(
    shapes: Registry, module: types.ModuleType
) -> None:
    assert shapes.get("square") is module.Square
    assert shapes.help("square") == "four sides"


def test_an_unknown_name_is_told_the_nearest_one(shapes: Registry) -> None:
    with pytest.raises(RegistryError, match="there is no shape 'squar'; did you mean 'square'"):
        shapes.get("squar")


def test_a_target_without_its_attribute_is_named(shapes: Registry, module: types.ModuleType) -> None:
    with pytest.raises(RegistryError, match="shape 'cube' is declared as tests_shapes:Cube"):
        shapes.get("cube")


def test_a_target_without_its_module_is_named(shapes: Registry) -> None:
    with pytest.raises(RegistryError, match="shape 'square' is declared as tests_shapes:Square"):
        shapes.get("square")


def test_a_package_that_a_target_needs_is_named(
    shapes: Registry, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tests_shapes.py").write_text("import no_such_package.part\n")  # type: ignore[operator]
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingDependencyError, match="shape 'square' needs the package no_such_package"):
        shapes.get("square")
    sys.modules.pop("tests_shapes", None)


def test_a_module_that_is_loaded_again_may_declare_its_names_again(
    shapes: Registry, module: types.ModuleType
) -> None:
    assert shapes.get("square")
    shapes.lazy("square", "tests_shapes:Square", help="four equal sides")
    module.Square = newer = type("Square", (), {})  # type: ignore[attr-defined]
    assert shapes.get("square") is newer
    assert shapes.help("square") == "four equal sides"


def test_a_decorated_factory_may_be_defined_again_in_its_place(shapes: Registry) -> None:
    def define(sides: int) -> object:
        @shapes.register("regular", help=f"{sides} sides")
        def regular() -> int:
            return sides

        return regular

    define(5)
    define(6)
    assert shapes.get("regular")() == 6


def test_two_places_cannot_have_one_name(shapes: Registry) -> None:
    with pytest.raises(
        RegistryError, match=r"'square' is already registered as tests_shapes:Square; other:Sq"
    ):
        shapes.lazy("square", "other:Square")
    with pytest.raises(RegistryError, match="needs another name"):
        shapes.register("square")(lambda: None)


def test_names_are_found_by_port(shapes: Registry) -> None:
    assert shapes.fitting(["platonic", "flat"]) == ["cube", "square"]
    assert not shapes.entry("square").fits(["solid"])
    shapes.require_port("cube", "solid")
    with pytest.raises(RegistryError, match="shape 'square' does not fit here\n  fix:   one of cube"):
        shapes.require_port("square", "solid")


def test_a_name_that_declares_no_port_fits_everywhere(shapes: Registry) -> None:
    assert shapes.entry("plain").fits(["solid"])
    assert shapes.fitting(["solid"]) == ["cube"]
    shapes.require_port("plain", "solid")
