"""The source files that a job's result depends on, found by following the imports of its handler.

    import a.b, from a import b      the module, and the `__init__` of every package around it, also inside a function
    "models.kernels.softmax"         a whole import path in a string, which is how kernels and blocks are named, also
                                     with a name after a colon, as benchmarks have it
    mechanisms(), declarations()     every module of the mechanisms' packages
    [..., "-m", "proofs", ...]       another program: all of that package, with its data in TOML, and the kernels of
                                     gpu, which it may run

Of the handlers' own module only what the handler uses is followed. Nothing is imported to find out.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from models.forms import FAMILIES

HANDLERS = "models.study.job_handlers"
PACKAGES = ("minigrad", "models")  # what a job runs in its own process, on the CPU
SEARCHES = {"models.forms.mechanisms", "models.forms.declarations"}  # which import every module of the families
DEVICE = "gpu"


def sources(handler: str, root: Path) -> list[Path]:
    """Return the files under a root that the result of a function of `job_handlers` depends on, in order."""
    handlers_file = root.joinpath(*HANDLERS.split(".")).with_suffix(".py")
    definitions = _definitions(ast.parse(handlers_file.read_text("utf-8")), handler)
    programs = {module for node in definitions for module in _programs(node)}
    packages = (*PACKAGES, *programs, *([DEVICE] if programs else []))
    files, todo = {handlers_file}, [module for node in definitions for module in _imported(node, HANDLERS, root)]
    todo += [_name(file, root) for program in programs for file in (root / program).rglob("*.py")]
    visited: set[str] = set()
    while todo:
        module = todo.pop()
        if module in visited or module.partition(".")[0] not in packages:
            continue
        visited.add(module)
        file = _file(root, module)
        if file is None or file in files:
            continue
        files.add(file)
        todo += _imports(file, root)
        if module.startswith(f"{DEVICE}."):
            files.update(path for path in file.parent.iterdir() if path.suffix in (".cu", ".cuh"))
    files.update(path for program in programs for path in (root / program).rglob("*.toml"))
    return sorted(files)


def _definitions(tree: ast.Module, name: str) -> list[ast.stmt]:
    """Return the top-level statements of a module that define a name, or what they use, imports among them."""
    defining: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defining[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                single = (
                    ast.Import([alias])
                    if isinstance(node, ast.Import)
                    else ast.ImportFrom(node.module, [alias], node.level)
                )
                defining[alias.asname or alias.name.partition(".")[0]] = single
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defining.update((target.id, node) for target in targets if isinstance(target, ast.Name))
    names, todo = {name}, [name]
    while todo:
        for part in ast.walk(defining[todo.pop()]):
            if isinstance(part, ast.Name) and part.id in defining and part.id not in names:
                names.add(part.id)
                todo.append(part.id)
    return [defining[each] for each in sorted(names)]


@cache
def _imports(file: Path, root: Path) -> frozenset[str]:
    module = _name(file, root)
    return frozenset(
        _imported(ast.parse(file.read_text("utf-8")), f"{module}.__init__" if _is_package(file) else module, root)
    )


def _imported(tree: ast.AST, module: str, root: Path) -> Iterator[str]:
    """Yield what the code of a module imports, with the packages around it."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level or None] if node.level else []
            source = ".".join([*package, *([node.module] if node.module else [])])
            names = [source, *(f"{source}.{alias.name}" for alias in node.names)]
            if not SEARCHES.isdisjoint(names):
                folders = [root / "models" / family for family in FAMILIES]
                names += [_name(file, root) for folder in folders for file in folder.glob("*.py")]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            path = node.value.partition(":")[0]
            names = [path] if _is_path(path) else []
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _is_path(text: str) -> bool:
    parts = text.split(".")
    return len(parts) > 1 and all(map(str.isidentifier, parts))


def _programs(tree: ast.AST) -> Iterator[str]:
    """Yield the packages that code runs with `python -m`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.List):
            words = [x.value if isinstance(x, ast.Constant) else None for x in node.elts]
            yield from (str(word) for flag, word in zip(words, words[1:], strict=False) if flag == "-m")


def _file(root: Path, module: str) -> Path | None:
    """Return the file of a module under a root, or None where there is none."""
    path = root.joinpath(*module.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _name(file: Path, root: Path) -> str:
    """Return the import path of a file under a root."""
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if _is_package(file) else parts)


def _is_package(file: Path) -> bool:
    return file.name == "__init__.py"
