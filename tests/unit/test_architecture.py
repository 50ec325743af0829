"""What import-linter's contracts in pyproject.toml cannot hold: sizes, openings, and who may name a library's parts."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import distrain

PACKAGE = Path(distrain.__file__).parent
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
MAX_ROOT_FILES, MAX_FILE_LINES, MAX_FUNCTION_LINES = 14, 300, 80
LONG_KERNELS = {  # a loop over bytes or keys keeps its state in local variables; a split would pass all of it around
    "text/readers/delimited_kernel.py",
    "text/synthetic/corpus_kernel.py",
    "text/vectorizers/tokenizer_kernels.py",
    "text/vectorizers/word_table_kernels.py",
}
UNOPENED = ("__init__.py", "__main__.py", "pod.py", "version.py")  # one line of code each


def test_the_root_holds_few_files():
    assert len(list(PACKAGE.glob("*.py"))) <= MAX_ROOT_FILES


@pytest.fixture(scope="module")
def trees():
    """The syntax tree of each file."""
    return {name: ast.parse(source) for name, source in SOURCES.items()}


def test_each_module_says_what_it_decides_and_what_it_never_does(trees):
    opened = [name for name in SOURCES if not name.endswith(UNOPENED[:1]) and name not in UNOPENED]
    openings = {name: ast.get_docstring(trees[name]) or "" for name in opened}
    assert {name for name, opening in openings.items() if "Decides:" not in opening or "Never:" not in opening} == set()


def test_strategies_of_tensorflow_are_used_by_mirrored_alone():
    users = {name for name, source in SOURCES.items() if "tf.distribute." in source}
    assert users == {"distribution/mirrored.py", "keras_backend/private_names.py"}  # the second checks a private name


def outer_functions(tree):
    """The functions that are in no other function; those in them are shorter."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield node
        else:
            yield from outer_functions(node)


def is_long(name, tree):
    longest = max((node.end_lineno - node.lineno + 1 for node in outer_functions(tree)), default=0)
    return len(SOURCES[name].splitlines()) > MAX_FILE_LINES or longest > MAX_FUNCTION_LINES


def test_files_and_functions_are_short(trees):
    assert {name for name, tree in trees.items() if is_long(name, tree)} == LONG_KERNELS
