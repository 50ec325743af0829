"""The arrows between modules, read from the sources: the design's picture is what the code does.

A new module must be given its place in `LEVELS`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import distrain

PACKAGE = Path(distrain.__file__).parent

# Top to bottom. A module imports only what stands below it; those that stand beside each other do not meet.
LEVELS = (
    ("__main__", "pod"),
    ("cli",),
    ("alive", "keras_fit", "serve", "prepare", "planning"),
    ("train", "horovod"),
    ("saving",),
    ("jobs",),
    ("job",),
    ("loop", "actions", "notices", "task", "run_directory", "report", "data", "distribution", "models"),
    ("step", "checkpoint"),
    ("metrics",),
    (
        "agreement",
        "aligned",
        "batch",
        "compiled",
        "config",
        "keras_backend",
        "pod_meeting",
        "progress",
        "startup",
        "terminal",
        "world",
    ),
    ("errors",),
)
LEVEL = {component: level for level, components in enumerate(LEVELS) for component in components}
APART = {"loop", "actions", "step", "report", "checkpoint", "data", "distribution"}
WITHOUT_TENSORFLOW = (
    "agreement",
    "batch",
    "checkpoint",
    "config",
    "errors",
    "loop",
    "notices",
    "planning",
    "pod",
    "pod_meeting",
    "progress",
    "run_directory",
    "saving",
    "world",
)
FRAMEWORKS = {"tensorflow", "keras"}


def imports(path):
    """Full names of all modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module == "distrain":
                yield from (f"distrain.{alias.name}" for alias in node.names if not alias.name.startswith("__"))
            else:
                yield node.module


def component(module):
    """The part of the design that a module of the package belongs to."""
    name = module.split(".")[1]
    if name in ("plan_table", "plan_time", "traffic"):
        return "planning"
    if name.startswith("prepare") or name == "staging":
        return "prepare"
    return "report" if name.startswith("report") else name


def module_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 2 and parts[-1] == "__init__" else parts)


SOURCES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"}
ARROWS = {
    (component(module), component(target))
    for module, path in SOURCES.items()
    for target in imports(path)
    if target.startswith("distrain.")
}


def test_every_module_has_its_place():
    assert {component(module) for module in SOURCES} == set(LEVEL)


def test_arrows_point_down():
    upward = {(a, b) for a, b in ARROWS if a != b and LEVEL[a] >= LEVEL[b]}
    assert upward == set()


def test_siblings_do_not_import_each_other():
    assert {(a, b) for a, b in ARROWS if a != b and {a, b} <= APART} == set()


def test_data_knows_what_a_batch_and_an_error_is_and_nothing_else():
    assert {b for a, b in ARROWS if a == "data"} <= {"data", "aligned", "batch", "compiled", "config", "errors"}


def test_the_bottom_imports_nothing():
    assert {(a, b) for a, b in ARROWS if a in ("errors", "batch", "progress")} == set()
    assert {b for a, b in ARROWS if a in ("config", "world", "agreement")} == {"errors"}


def test_the_reader_sees_arrows():
    assert {("cli", "train"), ("train", "loop"), ("models", "batch"), ("step", "metrics"), ("data", "data")} <= ARROWS


@pytest.mark.parametrize("module", [m for m in SOURCES if component(m) in (*WITHOUT_TENSORFLOW, "data", "prepare")])
def test_these_know_no_tensorflow_not_even_in_a_function(module):
    assert FRAMEWORKS.isdisjoint(name.split(".")[0] for name in imports(SOURCES[module]))


def test_one_file_for_each_way_to_distribute():
    """Strategies and collectives are used in `distribution` alone."""
    users = {module for module, path in SOURCES.items() if "tf.distribute." in path.read_text(encoding="utf-8")}
    assert users == {"distrain.distribution.mirrored"}
    packages = {(name.split(".")[0], module) for module, path in SOURCES.items() for name in imports(path)}
    assert {module for package, module in packages if package == "horovod"} == {
        "distrain.distribution.collectives.horovod"
    }
    users = {module for package, module in packages if package == "mpi4py"}
    assert users == {"distrain.distribution.collectives.mpi", "distrain.prepare.mpi_workers"}


def test_no_file_is_too_long_and_each_says_what_it_decides():
    for path in SOURCES.values():
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 500, path
        assert ast.get_docstring(ast.parse(text)), path
        assert path.name != "utils.py"
