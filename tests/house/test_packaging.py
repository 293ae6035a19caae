"""The metadata is what the code needs: packages, dependencies and pins."""

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("[a-z]*/__init__.py") if path.parent.name != "tests")
CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / "setup.cfg", encoding="utf-8")


def words(section: str, option: str) -> set[str]:
    """The entries of a list in setup.cfg, less versions, extras and the systems that they are for."""
    entries = re.split(r"[,\n]", CONFIG[section][option])
    return {re.split(r"[\s<>=!~*[;]", entry.strip())[0] for entry in entries} - {""}


def imported(package: str, *, lazily: bool) -> set[str]:
    """The top-level modules that a package imports: when it is imported itself, or also later, inside functions."""
    found = set()
    for path in (path for path in (ROOT / package).rglob("*.py") if not path.name.startswith("test_")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = {child for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for child in ast.walk(node)}
        for node in ast.walk(tree):
            if node in inside and not lazily:
                continue
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - set(PACKAGES)


def modules(distributions: set[str]) -> set[str]:
    """What a distribution is called when it is imported: here, its own name with underscores, in lower case."""
    return {name.replace("-", "_").lower() for name in distributions}


REQUIRED = modules(words("options", "install_requires"))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_installed_typed_and_layered(package):
    assert package in words("options.packages.find", "include")
    assert package in words("mypy", "files")
    assert package in words("importlinter", "root_packages")


def test_what_is_imported_is_required():
    assert imported("minigrad", lazily=False) <= REQUIRED
    assert imported("proofs", lazily=False) <= REQUIRED | modules(words("options.extras_require", "check"))
    assert imported("models", lazily=False) <= REQUIRED | modules(words("options.extras_require", "study"))


def test_what_is_required_is_imported():
    assert REQUIRED <= set().union(*(imported(package, lazily=True) for package in ("minigrad", "models", "proofs")))


def test_tests_and_the_study_have_the_command_lines():
    needed = words("options.extras_require", "cli") | words("options.extras_require", "check")
    for extra in ("test", "study"):
        assert needed <= words("options.extras_require", extra)


def test_every_dependency_is_pinned():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)  # no index, no path, no range
    extras = {name for extra in CONFIG["options.extras_require"] for name in words("options.extras_require", extra)}
    pinned = modules({line.partition("==")[0] for line in lines})
    assert modules(words("options", "install_requires") | extras) <= pinned


def test_no_file_names_a_place_on_somebody_s_machine():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    texts = {name: (ROOT / name).read_bytes() for name in files if name and (ROOT / name).is_file()}
    assert not [name for name, text in texts.items() if re.search(rb"/(?:home|root|Users|work|opt)/\w", text)]
