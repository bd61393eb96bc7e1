"""Claims about the house: who imports whom, who may compile, what no file does, and how long things get."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
KERNELS = "gpumargin_kernels"


class Layer(NamedTuple):
    """Where a module or package stands: it imports lower floors only, and these packages of others."""

    floor: int
    third_party: frozenset[str]


def _at(floor: int, *third_party: str) -> Layer:
    return Layer(floor, frozenset(third_party))


# A new module of gpumargin gets its place here before anything imports it.
LAYERS = {
    KERNELS: _at(0, "jax"),
    "gpumargin": _at(0),
    "gpumargin.errors": _at(0),
    "gpumargin.clock": _at(0),
    "gpumargin.sample": _at(0),
    "gpumargin.printable": _at(0),
    "gpumargin.evaluate": _at(0),
    "gpumargin.expressions": _at(1),
    "gpumargin.schema": _at(0, "pyarrow"),
    "gpumargin.result_columns": _at(0, "pyarrow"),
    "gpumargin.failures": _at(1, "polars"),
    "gpumargin.limits": _at(0),
    "gpumargin.files": _at(1, "pyarrow"),
    "gpumargin.modelfile": _at(2, "pydantic"),
    "gpumargin.model_problems": _at(1),
    "gpumargin.device": _at(1, "jax", "numpy"),
    "gpumargin.native": _at(1, "jax", "llvmlite", "numpy"),
    "gpumargin.pack": _at(1, "numpy", "pyarrow"),
    "gpumargin.disk": _at(0),
    "gpumargin.publish": _at(3, "pyarrow"),
    "gpumargin.synth": _at(2, "numpy", "polars", "pyarrow"),
    "gpumargin.tables": _at(2, "numpy", "polars", "pyarrow"),
    "gpumargin.sums": _at(2, "numpy", "pyarrow"),
    "gpumargin.fingerprints": _at(3, "numpy", "polars", "pyarrow"),
    "gpumargin.interest": _at(4, "numpy", "pyarrow"),
    "gpumargin.conservation": _at(5, "pyarrow"),
    "gpumargin.lanes": _at(0),
    "gpumargin.merging": _at(1, "numpy", "pyarrow"),
    "gpumargin.digests": _at(2, "numpy", "pyarrow"),
    "gpumargin.bind": _at(3, "numpy"),
    "gpumargin.catalogue": _at(3, "pydantic"),
    "gpumargin.grades": _at(4),
    "gpumargin.engine": _at(2, "jax", "numpy"),
    "gpumargin.importers": _at(2, "polars"),
    "gpumargin.identity": _at(3),
    "gpumargin.checks": _at(3, "numpy", "polars", "pyarrow"),
    "gpumargin.model_checks": _at(4, "numpy", "pyarrow"),
    "gpumargin.frames": _at(0, "polars"),
    "gpumargin.fill": _at(2, "polars"),
    "gpumargin.totals": _at(3, "numpy", "pyarrow"),
    "gpumargin.selfcheck": _at(3, "numpy", "pyarrow"),
    "gpumargin.filling": _at(4, "numpy", "polars", "pyarrow"),
    "gpumargin.results": _at(4, "numpy", "pyarrow"),
    "gpumargin.owners": _at(5, "numpy", "pyarrow"),
    "gpumargin.runs": _at(4, "polars", "pyarrow"),
    "gpumargin.doctor": _at(4, "jax"),
    "gpumargin.explain": _at(5, "numpy", "polars", "pyarrow"),
    "gpumargin.prepare": _at(5, "numpy", "polars", "pyarrow"),
    "gpumargin.solvency": _at(5, "numpy", "polars", "pyarrow"),
    "gpumargin.verification": _at(6, "numpy", "polars", "pyarrow", "pydantic"),
    "gpumargin.report": _at(6, "jinja2", "matplotlib", "numpy", "polars", "pyarrow"),
    "gpumargin.greeks": _at(5, "numpy", "pyarrow"),
    "gpumargin.formulas": _at(6),
    "gpumargin.rejects": _at(4, "polars", "pyarrow"),
    "gpumargin.progress": _at(6, "pyarrow"),
    "gpumargin.origin": _at(6),
    "gpumargin.summary": _at(7, "pyarrow"),
    "gpumargin.pipeline": _at(7, "pyarrow"),
    "gpumargin.run": _at(8, "pyarrow"),
    "gpumargin.resident": _at(7, "jax", "numpy", "polars", "pyarrow"),
    "gpumargin.compare": _at(9, "polars"),
    "gpumargin.difference": _at(9, "numpy", "polars", "pyarrow"),
    "gpumargin.bench": _at(9, "jax", "numpy"),
    "gpumargin.cli": _at(10, "polars", "pyarrow", "rich", "typer"),
    "gpumargin.__main__": _at(11),
}
# A method that hands over to a higher floor, imported where it is called.
HANDED_UP = {("gpumargin.runs", "gpumargin.explain")}
COMPILES = {"gpumargin.engine", "gpumargin.device"}
COMPILING_WORDS = {"jit", "pjit", "pmap", "device_put", "block_until_ready", "shard_map"}
KERNEL_STDLIB = {"collections", "dataclasses", "functools", "math", "operator", "typing"}
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "yaml"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "pa.memory_map"}
# Where polars may read a file: those of a run, which this package wrote, after their footers were found sane.
POLARS_READS = {"gpumargin.runs"}
MOST_FILE_LINES, MOST_FUNCTION_LINES, MEDIAN_FUNCTION_LINES, NINE_TENTHS_LINES = 350, 60, 10, 30


@dataclass(frozen=True)
class Import:
    """One import statement's target: where it stands, and whether it runs when the module is imported."""

    target: str
    line: int
    at_import: bool


@dataclass(frozen=True)
class Module:
    """A source file of the two packages."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def group(self) -> str:
        """Its key in `LAYERS`."""
        parts = self.name.split(".")
        return KERNELS if parts[0] == KERNELS else ".".join(parts[:2])

    def where(self, line: int) -> str:
        return f"{self.path.relative_to(ROOT)}:{line}"


@cache
def modules() -> dict[str, Module]:
    found = {}
    for base, package in ((ROOT, "gpumargin"), (ROOT / "kernels", KERNELS)):
        for path in sorted((base / package).rglob("*.py")):
            name = ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
            found[name] = Module(name, path, ast.parse(path.read_text("utf-8")))
    return found


def _targets(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, "relative imports hide who imports whom"
    inner = [f"{node.module}.{alias.name}" for alias in node.names]
    return [name if name in modules() else str(node.module) for name in inner]


def _imports(body: list[ast.stmt], *, at_import: bool) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (Import(target, node.lineno, at_import) for target in _targets(node))
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        inner = at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for name in ("body", "orelse", "finalbody", "handlers") if not is_for_types else ():
            yield from _imports(getattr(node, name, []), at_import=inner)


@cache
def imports(name: str) -> tuple[Import, ...]:
    """Imports of a module that run, those for type checkers left out."""
    return tuple(_imports(modules()[name].tree.body, at_import=True))


def top(target: str) -> str:
    return target.split(".")[0]


def is_ours(target: str) -> bool:
    return top(target) in ("gpumargin", KERNELS)


def all_modules() -> list[Module]:
    return list(modules().values())


def test_every_module_has_its_place_in_the_table_and_the_table_names_no_other() -> None:
    assert {module.group for module in all_modules()} == set(LAYERS)


def test_imports_go_down_the_floors_only() -> None:
    wrong = []
    for module in all_modules():
        for each in imports(module.name):
            if not is_ours(each.target):
                continue
            group = modules()[each.target].group
            is_lower = group == module.group or LAYERS[group].floor < LAYERS[module.group].floor
            if not is_lower and (each.at_import or (module.group, group) not in HANDED_UP):
                wrong.append(f"{module.where(each.line)}: {module.group} imports {group}, which is not below it")
    assert not wrong, "\n".join(wrong)


def test_modules_import_the_packages_that_their_layer_allows() -> None:
    wrong = [
        f"{module.where(each.line)}: {module.group} imports {each.target}"
        for module in all_modules()
        for each in imports(module.name)
        if not is_ours(each.target)
        and top(each.target) not in sys.stdlib_module_names | LAYERS[module.group].third_party
    ]
    assert not wrong, "\n".join(wrong)


def test_nobody_imports_a_private_name_of_another_package() -> None:
    wrong = [
        f"{module.where(node.lineno)}: {alias.name} of {node.module}"
        for module in all_modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and is_ours(str(node.module))
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert not wrong, "\n".join(wrong)


def test_modules_of_one_package_form_no_circle() -> None:
    def below(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        for each in imports(name):
            if each.at_import and each.target in modules() and each.target not in seen:
                below(each.target, (*path, name))
        seen.add(name)

    seen: set[str] = set()
    for name in modules():
        below(name, ())


def test_kernels_import_jax_themselves_and_a_few_plain_modules_of_python() -> None:
    allowed = KERNEL_STDLIB | {"jax", KERNELS}
    wrong = [
        f"{module.where(each.line)}: {each.target}"
        for module in all_modules()
        if module.group == KERNELS
        for each in imports(module.name)
        if top(each.target) not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def reached(name: str) -> set[str]:
    """Modules that importing `name` imports, parents included, and the packages of others among them."""
    found: set[str] = set()
    todo = [name]
    while todo:
        here = todo.pop()
        parents = [here.rsplit(".", n)[0] for n in range(1, here.count(".") + 1)]
        for target in [*parents, *(each.target for each in imports(here) if each.at_import)]:
            if target not in found:
                found.add(target)
                todo += [target] if target in modules() else []
    return found


def test_the_engine_and_all_below_it_need_jax_numpy_and_pyarrow_alone() -> None:
    others = {top(target) for target in reached("gpumargin.engine") if not is_ours(target)} - sys.stdlib_module_names
    assert others == {"jax", "numpy", "pyarrow"}


def in_a_fresh_process(code: str) -> str:
    """What a program prints that starts with nothing of ours imported."""
    command = [sys.executable, "-c", f"import sys\nsys.path[:0] = ['.', 'kernels']\n{code}"]
    environment = {"PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603  our own code
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_engine_runs_on_a_machine_that_has_nothing_else() -> None:
    absent = ("polars", "pydantic", "typer", "rich", "scipy.stats")
    code = f"sys.modules.update(dict.fromkeys({absent!r}))\nimport gpumargin.engine\nprint('here')"
    assert in_a_fresh_process(code) == "here\n"


def test_importing_everything_touches_no_device_and_changes_no_setting() -> None:
    names = sorted(name for name in modules() if not name.endswith("__main__"))
    code = f"""
import importlib, os, warnings
import jax, jinja2, matplotlib.figure, numpy, polars, pyarrow, pydantic, rich, typer
from jax._src import xla_bridge
settings, errors, environment = dict(jax.config.values), numpy.geterr(), dict(os.environ)
filters = list(warnings.filters)
for name in {names!r}:
    importlib.import_module(name)
assert not xla_bridge.backends_are_initialized()
assert dict(jax.config.values) == settings
assert numpy.geterr() == errors
assert dict(os.environ) == environment
assert set(warnings.filters) <= set(filters), set(warnings.filters) - set(filters)
print(len(sys.modules) > 100)
"""
    assert in_a_fresh_process(code) == "True\n"


def test_importing_the_package_alone_imports_nothing_heavy() -> None:
    code = "import gpumargin\nprint(sorted({'jax', 'polars', 'pyarrow', 'numpy', 'pydantic'} & set(sys.modules)))"
    assert in_a_fresh_process(code) == "[]\n"


def test_only_the_engine_and_the_device_module_compile_place_and_wait() -> None:
    wrong = [
        f"{module.where(node.lineno)}: {ast.unparse(node)}"
        for module in all_modules()
        if module.name not in COMPILES
        for node in ast.walk(module.tree)
        if (isinstance(node, ast.Attribute) and node.attr in COMPILING_WORDS)
        or (isinstance(node, ast.alias) and node.name.split(".")[-1] in COMPILING_WORDS)
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_is_unpickled_evaluated_or_given_to_a_shell() -> None:
    wrong = []
    for module in all_modules():
        wrong += [
            f"{module.where(each.line)}: {each.target}"
            for each in imports(module.name)
            if top(each.target) in UNSAFE_MODULES
        ]
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            flags = {k.arg for k in node.keywords if isinstance(k.value, ast.Constant) and k.value.value is True}
            if name in UNSAFE_CALLS or flags & {"shell", "allow_pickle"}:
                wrong.append(f"{module.where(node.lineno)}: {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong)


def test_files_of_others_are_opened_in_one_place_and_never_by_polars() -> None:
    polars = {f"pl.{verb}_{form}" for verb in ("read", "scan") for form in ("parquet", "ipc", "csv", "ndjson", "delta")}
    arrow = {"pq.ParquetFile", "pq.read_table", "pq.read_metadata", "pq.read_schema", "pa.ipc.open_file", "ds.dataset"}
    own = {"gpumargin.files.reading", "gpumargin.explain.sources"}  # the latter has datasets of tables in memory
    own |= {"gpumargin.merging", "gpumargin.rejects", "gpumargin.checks.twins"}  # what they have written themselves
    own |= {"gpumargin.publish.files"}  # likewise
    own |= {"gpumargin.verification.run_tables"}  # which judges footers first, and wants the types of the files
    wrong = [
        f"{module.where(node.lineno)}: {ast.unparse(node.func)}"
        for module in all_modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in (polars if module.name in POLARS_READS | own else polars | arrow)
        and not (module.name in POLARS_READS and ast.unparse(node.func) == "pl.scan_parquet")
    ]
    assert not wrong, "\n".join(wrong)


# --- Docstrings and budgets.

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Definition]]:
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body, f"{node.name}.")


def test_every_module_and_public_name_has_a_docstring() -> None:
    bare = [module.where(1) for module in all_modules() if not ast.get_docstring(module.tree)]
    for module in all_modules():
        bare += [
            f"{module.where(node.lineno)}: {name}"
            for name, node in _public(module.tree.body)
            if not ast.get_docstring(node)
        ]
    assert not bare, "\n".join(bare)


def _docstring_lines(tree: ast.AST) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def code_lines(module: Module) -> dict[str, int]:
    """Lines of every function without its signature's decorators, blanks, comments and docstrings."""
    source = module.path.read_text("utf-8").splitlines()
    skipped = _docstring_lines(module.tree)
    is_code = [
        bool(text.strip()) and not text.strip().startswith("#") and n not in skipped for n, text in enumerate(source, 1)
    ]
    return {
        f"{module.where(node.lineno)} {node.name}": sum(is_code[node.lineno - 1 : node.end_lineno])
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("package", ["gpumargin", KERNELS])
def test_functions_are_short(package: str) -> None:
    lines = {
        name: n for module in all_modules() if top(module.name) == package for name, n in code_lines(module).items()
    }
    assert statistics.median(lines.values()) <= MEDIAN_FUNCTION_LINES
    assert sorted(lines.values())[len(lines) * 9 // 10] <= NINE_TENTHS_LINES
    assert not {name: n for name, n in lines.items() if n > MOST_FUNCTION_LINES}


def test_files_fit_on_a_few_screens() -> None:
    long = {
        module.where(1): n
        for module in all_modules()
        if (n := len(module.path.read_text("utf-8").splitlines())) > MOST_FILE_LINES
    }
    assert not long
