"""The house rules that code could break without failing anything else."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import genzoo.api  # noqa: F401  (reads every card)
from genzoo.core.recipe_tree import flatten
from genzoo.core.registry import (
    CODECS,
    DATASETS,
    LOSSES,
    METRICS,
    MODELS,
    OPTIMIZERS,
    REGISTRIES,
    SAMPLERS,
    TASKS,
    Registry,
)

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = sorted(
    path.name for path in (ROOT / "genzoo/families").iterdir() if (path / "__init__.py").is_file()
)


def modules_after(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded after running some code."""
    script = f"import sys\n{code}\nprint(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return set(result.stdout.splitlines()[-1].split())


def test_import_contracts_hold() -> None:
    # in a process of its own: the linter reconfigures logging and silences every logger that exists
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_importing_genzoo_and_its_names_loads_no_heavy_package() -> None:
    loaded = modules_after("import genzoo, genzoo.api, genzoo.cli\nassert genzoo.load_recipe and dir(genzoo)")
    assert not loaded & {"torch", "diffusers", "transformers", "accelerate", "numpy", "PIL", "rich"}


QUICK = ["--help"], ["list"], ["list", "models", "*_b4"], ["show", "quickstart/dim_digits"]


@pytest.mark.parametrize("arguments", QUICK, ids=" ".join)
def test_quick_commands_load_no_torch(arguments: list[str]) -> None:
    call = f"from genzoo.cli import main\ntry:\n    main({arguments})"
    assert "torch" not in modules_after(f"{call}\nexcept SystemExit as end:\n    assert not end.code")


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_is_named_in_core_training_or_cli(family: str) -> None:
    word = re.compile(rf"(?<![a-z_]){re.escape(family)}(?![a-z_])", re.IGNORECASE)
    files = [
        ROOT / "genzoo/cli.py",
        *(ROOT / "genzoo/core").rglob("*.py"),
        *(ROOT / "genzoo/training").rglob("*.py"),
    ]
    # `dim` is also what tensors call an axis: such arguments and attributes are no mention
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if word.search(re.sub(r"\bdim=|\.dim\b|\bdim: int", "", line))
    ]
    assert not found


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_registered_name_resolves_to_a_callable(kind: str) -> None:
    registry = REGISTRIES[kind]
    for name in registry:
        assert callable(registry.get(name)), name
        assert registry.help(name), f"{name} has no line of help"


def names_in_use() -> set[str]:
    """The value of every `name` key in configs and recipes."""
    import yaml

    used: set[str] = set()
    for path in [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "recipes").rglob("*.yaml")]:
        values = flatten(yaml.safe_load(path.read_text()))
        used |= {str(value) for key, value in values if key == "name" or key.endswith(".name")}
    return used


@pytest.mark.parametrize(
    "registry", [MODELS, TASKS, LOSSES, SAMPLERS, DATASETS, CODECS, METRICS, OPTIMIZERS], ids=lambda r: r.kind
)
def test_every_registered_name_occurs_in_a_config_or_recipe(registry: Registry) -> None:
    unused = set(registry) - names_in_use()
    assert not unused


def test_public_names_resolve() -> None:
    genzoo = importlib.import_module("genzoo")
    for name in genzoo.__all__:
        assert getattr(genzoo, name) is not None
    for name in genzoo.api.__all__:
        assert getattr(genzoo.api, name) is not None


def test_all_modules_use_absolute_imports_and_annotate_their_functions() -> None:
    bare = []
    for path in (ROOT / "genzoo").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.returns is None:
                bare.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not bare
