"""Which module may import what (the table of docs/architecture.md), read from the source without running it."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "tune_lr"

# Named by a YAML, not imported.
WORKLOADS = {f"workloads.{name}" for name in ("lenet5", "digits", "gpt_bytes", "resnet18_cifar10")}
# Who imports a dependency, function bodies included. It changes on purpose only.
USERS = {
    "ray": {"slots", "trainable", "workers", "cluster"},
    "torch": {
        "training",
        "loading",
        "checkpoint",
        "colossal",
        "exchange",
        "checks",
        "optimizers",
        "stand_ins",
        "workers",
        "workloads",
    }
    | WORKLOADS
    | {"workloads.first_batch"},
    "torchvision": {"workloads.lenet5", "workloads.resnet18_cifar10"},
    "transformers": {"workloads.gpt_bytes"},
    "colossalai": {"colossal"},
    "safetensors": {"training", "checkpoint"},
    "wandb": {"tracking"},
    "wandb_workspaces": {"dashboard"},
    "optuna": {"study", "ledgers", "sampler"},
    "pydantic": {"config"},
    "pydantic_core": {"config"},
    "yaml": {"yaml_file", "study_dir", "report"},
    "matplotlib": {"plots"},
    "rich": {"api", "cli", "terminal"},
    "pandas": {"api"},
    "scipy": {"verdict", "sampler"},
    "argparse": {"cli"},
}
# What a module loads with itself, through whatever it imports at its top, is free of these.
FREE_OF = {
    "cli": {"torch", "ray", "wandb", "optuna", "pydantic", "rich", "numpy"},
    "errors": {"numpy"},
    "api": {"torch", "ray", "wandb", "optuna", "rich", "pandas"},
    "config": {"torch", "ray", "wandb", "optuna"},
    "plan": {"torch", "ray", "wandb", "optuna"},
    "plugins": {"torch", "ray", "wandb", "optuna", "pydantic"},
    "terminal": {"torch", "ray", "wandb", "optuna"},
    "tracking": {"torch", "ray", "wandb", "optuna"},
    "search": {"torch", "ray", "wandb", "argparse"},
    "study": {"torch", "ray", "wandb"},
    "status": {"torch", "ray", "wandb"},
    "study_dir": {"torch", "ray", "wandb", "optuna", "numpy", "pydantic"},
    "report": {"torch", "ray", "wandb", "optuna"},
    "lr_range_test": {"torch", "ray", "optuna", "pydantic"},
    "lr_schedules": {"torch", "ray", "optuna", "pydantic"},
    "search_space": {"torch", "ray", "wandb", "optuna"},
    "sampler": {"torch", "ray", "wandb"},
    "trial": {"torch", "ray", "wandb", "optuna"},
    "trainable": {"torch", "optuna", "wandb", "colossalai"},
    "workers": {"torch", "optuna", "wandb", "colossalai"},
    "slots": {"torch", "wandb"},
    "training": {"ray", "wandb", "optuna"},
    "loading": {"ray", "wandb", "optuna", "colossalai"},
    "checkpoint": {"ray", "wandb", "optuna", "colossalai"},
    "colossal": {"ray", "wandb", "optuna"},
    "checks": {"ray", "wandb", "optuna", "colossalai"},
} | {workload: {"ray", "wandb", "optuna", "colossalai"} for workload in WORKLOADS}
ENTRIES = {"cli"} | WORKLOADS


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def nodes(tree: ast.AST, functions: bool) -> Iterator[ast.AST]:
    """Everything that is run; what stands under `if TYPE_CHECKING` is not, a function's body only where asked for."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not functions:
            continue
        yield node
        yield from nodes(node, functions)


@cache
def imports(module: str, functions: bool) -> frozenset[str]:
    """Dotted names that a module imports; of its own package without "tune_lr."."""
    found: set[str] = set()
    for node in nodes(ast.parse(MODULES[module].read_text()), functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            assert node.module is not None
            if node.module.partition(".")[0] != "tune_lr":
                found.add(node.module)
                continue
            for alias in node.names:
                inner = f"{node.module}.{alias.name}".removeprefix("tune_lr.")
                found.add(inner if inner in MODULES else node.module.removeprefix("tune_lr."))
    return frozenset(found)


def own(module: str, functions: bool) -> set[str]:
    return {name for name in imports(module, functions) if name in MODULES}


def loaded_with(module: str, functions: bool = False) -> set[str]:
    """The modules of the package that a module loads, itself among them."""
    seen: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting |= own(name, functions) - seen
    return seen


def test_every_dependency_is_met_where_the_table_says() -> None:
    found: dict[str, set[str]] = {dependency: set() for dependency in USERS}
    for module in MODULES:
        for dependency in {name.partition(".")[0] for name in imports(module, functions=True)} & USERS.keys():
            found[dependency].add(module)
    assert found == USERS


@pytest.mark.parametrize("module", FREE_OF)
def test_importing_a_module_loads_nothing_that_it_must_not_know(module: str) -> None:
    outside = {
        name.partition(".")[0]: inner for inner in loaded_with(module) for name in imports(inner, functions=False)
    }
    assert {name: outside[name] for name in FREE_OF[module] & outside.keys()} == {}


def test_modules_do_not_import_each_other_in_circles() -> None:
    TopologicalSorter({module: own(module, functions=False) for module in MODULES}).prepare()


def test_no_module_is_left_over() -> None:
    reached = set().union(*(loaded_with(entry, functions=True) for entry in ENTRIES))
    assert set(MODULES) - {"__init__"} - reached == set()


def test_the_package_itself_loads_nothing() -> None:
    assert imports("__init__", functions=False) == {"typing"}


def test_a_workload_knows_nothing_of_learning_rates() -> None:
    assert not {name for name in loaded_with("workloads.lenet5") if name.startswith("lr_")}


def test_a_study_knows_nothing_of_those_who_train() -> None:
    assert loaded_with("study") & {"training", "workers", "trainable", "slots", "cluster", "colossal"} == set()
