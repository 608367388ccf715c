"""The rules of the house: which way imports run, no circles, sizes of files, folders, signatures.

Each rule is tried on a small made-up tree as well, where it is broken.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_LINES, MAX_FILES, MAX_PARAMETERS, MAX_KERNEL_PARAMETERS = 400, 12, 8, 20

# From the top: a part imports its own level and those below. The reference and the metrics stand
# aside: they import nothing but the last level, and no backend imports them.
LEVELS = (
    ("cli", "__main__"),
    ("matching",),
    ("trainer", "xmc"),
    ("acceptance", "integrations", "bench", "selfsupervised"),
    ("losses", "functional", "cached"),
    ("ops",),
    ("distributed",),
    ("backends",),
    ("engine", "checks"),
    ("settings", "positives", "whole", "version"),
)
ASIDE = ("reference", "metrics")

# Calls whose keywords are the contract (the fields of a settings class, the options of the class
# that they stand in for) or the schema of an operator.
FIXED = {
    "alc_kernels/functional.py": {
        "hardest_negatives", "triplet_loss", "softmax_loss", "sigmoid_loss",
        "threshold_margin_loss",
    },
    "alc_kernels/reference/": {
        "triplet_loss", "softmax_loss", "sigmoid_loss", "threshold_margin_loss", "batch_loss",
        "alc_loss",
    },
    "alc_kernels/losses/alc_loss.py": {"ALCLoss.__init__"},
    "alc_kernels/backends/cuda/operators.py": {"select_subtiles"},
    "alc_kernels/integrations/sentence_transformers/": {
        "CoverageEvaluator.__init__", "ALCRankingLoss.__init__",
    },
}  # fmt: skip


def level_of(module: str) -> int | None:
    """The place of a module in ``LEVELS``; None for the package itself."""
    part = module.split(".")[1] if "." in module else ""
    return next((place for place, names in enumerate(LEVELS) if part in names), None)


def modules(root: Path) -> dict[str, Path]:
    """All modules of the package by name."""
    found = {}
    for path in sorted((root / "alc_kernels").rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imports(path: Path) -> Iterator[ast.stmt]:
    """Import statements that run, at the top or within a function."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        types_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not types_only:
            waiting.extend(ast.iter_child_nodes(node))


def graph(root: Path) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports."""
    known = modules(root)
    made: dict[str, set[str]] = {}
    for name, path in known.items():
        made[name] = set()
        for node in imports(path):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                assert isinstance(node, ast.ImportFrom)
                full = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [one if one in known else str(node.module) for one in full]
            made[name] |= {one for one in targets if one in known} - {name}
    return made


def upward(root: Path) -> list[str]:
    """Imports that run against the levels."""
    found = []
    for name, targets in graph(root).items():
        part = name.split(".")[1] if "." in name else ""
        for target in sorted(targets):
            other = target.split(".")[1] if "." in target else ""
            if part in ASIDE:
                wrong = other not in (part, *LEVELS[-1])
            elif other in ASIDE:
                wrong = part in ("backends", "engine")
            else:
                own, its = level_of(name), level_of(target)
                if part and own is None:
                    found.append(f"{name} has no level")
                    break
                wrong = own is not None and its is not None and its < own
            if wrong:
                found.append(f"{name} -> {target}")
    return found


def circles(root: Path) -> list[list[str]]:
    """Groups of modules that import each other, directly or by way of others."""
    arrows = graph(root)

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for target in arrows[waiting.pop()] - seen:
                seen.add(target)
                waiting.append(target)
        return seen

    reached = {name: reach(name) for name in arrows}
    return sorted(
        {tuple(sorted(o for o in reached[n] if n in reached[o])) for n in arrows if n in reached[n]}
    )  # type: ignore[return-value]


def signatures(path: Path) -> Iterator[tuple[str, int, bool]]:
    """(name, parameters, is a kernel) of every function; methods as Class.name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        children = list(ast.iter_child_nodes(node))
        for child in children:
            if not isinstance(child, ast.FunctionDef):
                continue
            given = [a.arg for a in (*child.args.posonlyargs, *child.args.args)]
            count = len(given) + len(child.args.kwonlyargs)
            owner = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
            if owner and given and given[0] in ("self", "cls"):
                count -= 1
            kernel = any("jit" in ast.unparse(d) for d in child.decorator_list)
            yield owner + child.name, count, kernel


def operators(path: Path) -> set[str]:
    """Functions behind a ``torch.library`` operator: their parameters are its schema."""
    text = path.read_text(encoding="utf-8")
    return {
        argument.id
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("define", "library.define")
        for argument in node.args
        if isinstance(argument, ast.Name)
    }


def too_large(root: Path) -> list[str]:
    """Files, folders and signatures beyond their bounds."""
    found = []
    for path in modules(root).values():
        place = path.relative_to(root).as_posix()
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > MAX_LINES:
            found.append(f"{place}: {lines} lines")
        fixed = {
            name for start, names in FIXED.items() if place.startswith(start) for name in names
        }
        fixed |= operators(path)
        for name, count, kernel in signatures(path):
            if count > (MAX_KERNEL_PARAMETERS if kernel else MAX_PARAMETERS) and name not in fixed:
                found.append(f"{place}: {name} takes {count} parameters")
    for folder in {path.parent for path in modules(root).values()}:
        count = len(list(folder.glob("*.py")))
        if count > MAX_FILES:
            found.append(f"{folder.relative_to(root).as_posix()}: {count} files")
    return sorted(found)


def test_imports_run_down() -> None:
    assert upward(ROOT) == []


def test_no_circles() -> None:
    assert circles(ROOT) == []


def test_sizes() -> None:
    assert too_large(ROOT) == []


def test_fixed_signatures_exist() -> None:
    for start, names in FIXED.items():
        found = {
            name
            for path in modules(ROOT).values()
            if path.relative_to(ROOT).as_posix().startswith(start)
            for name, count, _ in signatures(path)
            if count > MAX_PARAMETERS
        }
        assert names <= found, start


@pytest.mark.parametrize(
    ("files", "rule", "expected"),
    [
        ({"engine/a.py": "from alc_kernels.ops import b", "ops/b.py": ""}, upward, "engine.a -> "),
        ({"engine/a.py": "def f():\n    import alc_kernels.ops.b", "ops/b.py": ""}, upward,
         "engine.a -> "),
        ({"metrics/a.py": "from alc_kernels import ops", "ops/__init__.py": ""}, upward, "-> "),
        ({"backends/a.py": "import alc_kernels.reference", "reference/__init__.py": ""}, upward,
         "-> alc_kernels.reference"),
        ({"new/a.py": "import alc_kernels.ops", "ops/__init__.py": ""}, upward, "has no level"),
        ({"ops/a.py": "import alc_kernels.ops.b", "ops/b.py": "from alc_kernels.ops import a"},
         circles, "alc_kernels.ops.b"),
        ({"ops/a.py": "#\n" * 401}, too_large, "401 lines"),
        ({f"ops/{n}.py": "" for n in range(13)}, too_large, "ops: 13 files"),
        ({"ops/a.py": "class A:\n  def f(self, a, b, c, d, e, f, g, h, *, i): ..."}, too_large,
         "A.f takes 9 parameters"),
        ({"backends/a.py": f"@triton.jit\ndef f({', '.join(f'a{n}' for n in range(21))}): ..."},
         too_large, "f takes 21 parameters"),
    ],
)  # fmt: skip
def test_broken_rules_are_found(files: dict, rule, expected: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def, type-arg]
    (tmp_path / "alc_kernels").mkdir()
    (tmp_path / "alc_kernels/__init__.py").touch()
    for name, text in files.items():
        path = tmp_path / "alc_kernels" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n" * (not text.endswith("\n")))
    (found,) = {str(one) for one in rule(tmp_path)}
    assert expected in found


def test_types_may_be_named_from_above(tmp_path: Path) -> None:
    (tmp_path / "alc_kernels/ops").mkdir(parents=True)
    (tmp_path / "alc_kernels/engine").mkdir()
    (tmp_path / "alc_kernels/ops/b.py").touch()
    code = "if TYPE_CHECKING:\n    from alc_kernels.ops import b\n"
    (tmp_path / "alc_kernels/engine/a.py").write_text(code)
    assert upward(tmp_path) == circles(tmp_path) == []
