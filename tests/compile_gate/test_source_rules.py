"""Rules that every kernel's source keeps; broken ones show on some GPUs only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import alc_kernels

KERNELS = Path(alc_kernels.__file__).parent / "backends" / "triton"
SOURCES = sorted(KERNELS.rglob("*.py"))
NAMES = [path.relative_to(KERNELS).as_posix() for path in SOURCES]


def test_the_sources_are_found():
    assert {"walk/kernel.py", "dense/kernel.py", "one_pass/kernel.py"} <= set(NAMES)


def _is_call(node: ast.AST, *names: str) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in names
    )


def transposed_products(source: str) -> list[int]:
    """Lines of products whose first operand is a transposed value that was computed, not loaded.

    ``acc += tl.dot(tl.trans(x), y)`` is mis-compiled on Hopper by Triton 3.4.0 to 3.7.0 when x
    comes out of a product. Whether it does is not visible here, so x must be loaded directly
    within the same function.
    """
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        values = {
            target.id: node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }

        def resolve(node: ast.AST, values: dict[str, ast.AST] = values) -> ast.AST:
            seen = set()
            while isinstance(node, ast.Name) and node.id in values and node.id not in seen:
                seen.add(node.id)
                node = values[node.id]
            return node

        for node in ast.walk(function):
            if not _is_call(node, "dot") or not node.args:
                continue
            first = resolve(node.args[0])
            if _is_call(first, "trans", "permute") and not _is_call(
                resolve(first.args[0] if first.args else first.func.value), "load"
            ):
                found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_no_product_of_a_transposed_result(path):
    assert transposed_products(path.read_text()) == []


def test_the_check_sees_the_pattern():
    bad = """
def kernel(x_ptr, y):
    x = tl.dot(tl.load(x_ptr), y)
    acc += tl.dot(tl.trans(x), y)
    z = x.trans()
    acc = tl.dot(z, y, acc)
"""
    assert transposed_products(bad) == [4, 6]
    good = "def kernel(p, y):\n    x = tl.load(p)\n    return tl.dot(tl.trans(x), y)\n"
    assert transposed_products(good) == []


SIZES = ("num_", "row_st", "col_st", "per_")  # what names of a batch's sizes begin with
MOST_PARAMETERS = 20


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_contracts_are_by_name(path):
    """What belongs together is one argument; it holds no size of the batch.

    Triton's do_not_specialize does not reach into a tuple: a size in one would be specialised.
    """
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and "NamedTuple" in map(ast.unparse, node.bases):
            fields = [
                ast.unparse(field.target) for field in node.body if isinstance(field, ast.AnnAssign)
            ]
            sizes = [
                name for name in fields if name.startswith(SIZES) and not name.endswith("_ptr")
            ]
            assert not sizes, f"{node.name}: {sizes}"
        elif isinstance(node, ast.FunctionDef) and node.decorator_list:
            count = len(node.args.args)
            assert count <= MOST_PARAMETERS, f"{node.name} has {count} parameters"


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_kernels_are_named_and_do_not_specialise_on_batch_sizes(path):
    """A size of the batch as a constexpr, or specialised, recompiles for every last batch."""
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.FunctionDef) or not node.name.endswith("_kernel"):
            continue
        kept: set[str] = set()
        for decorator in node.decorator_list:
            for keyword in getattr(decorator, "keywords", []):
                if keyword.arg == "do_not_specialize":
                    kept |= set(ast.literal_eval(keyword.value))
        for argument in node.args.args:
            if argument.arg.startswith(SIZES) and not argument.arg.endswith("_ptr"):
                assert argument.annotation is None, f"{node.name}: {argument.arg} is a constexpr"
                assert argument.arg in kept, f"{node.name}: {argument.arg} is specialised"
