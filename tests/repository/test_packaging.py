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
    """Return the entries of a list in setup.cfg, without versions, extras and system markers."""
    entries = re.split(r"[,\n]", CONFIG[section][option])
    return {re.split(r"[\s<>=!~*[;]", entry.strip())[0] for entry in entries} - {""}


def imported(package: str, *, lazily: bool) -> set[str]:
    """Return the top-level modules that a package imports; with `lazily`, also those imported inside functions."""
    result = set()
    for path in (path for path in (ROOT / package).rglob("*.py") if not path.name.startswith("test_")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = {child for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for child in ast.walk(node)}
        for node in ast.walk(tree):
            if node in inside and not lazily:
                continue
            if isinstance(node, ast.Import):
                result |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                result.add(node.module.partition(".")[0])
    return result - sys.stdlib_module_names - set(PACKAGES)


def modules(distributions: set[str]) -> set[str]:
    """Return the import names of distributions: their own names with underscores, in lower case; Pillow's is PIL."""
    return {"PIL" if name.lower() == "pillow" else name.replace("-", "_").lower() for name in distributions}


REQUIRED = modules(words("options", "install_requires"))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_installed_typed_and_layered(package):
    assert package in words("options.packages.find", "include")
    assert package in words("mypy", "files")
    assert package in words("importlinter", "root_packages")


def test_what_is_imported_is_required():
    assert imported("minigrad", lazily=False) <= REQUIRED
    extras = words("options.extras_require", "check") | words("options.extras_require", "mutate")
    assert imported("proofs", lazily=False) <= REQUIRED | modules(extras)
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


def tracked() -> list[Path]:
    """Return the files that git tracks, relative to the root."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in listed.splitlines() if (ROOT / name).is_file()]


def data(package: str) -> list[str]:
    """Return the patterns of package data that hold for a package."""
    listed = CONFIG["options.package_data"]
    return [entry.strip() for key in ("*", package) if key in listed for entry in re.split(r"[,\n]", listed[key])]


def test_every_file_of_a_package_is_installed():
    for path in (path for path in tracked() if path.parts[0] in PACKAGES and path.suffix != ".md"):
        folder = next(parent for parent in path.parents if (ROOT / parent / "__init__.py").exists())
        relative, package = path.relative_to(folder), ".".join(folder.parts)
        if path.suffix == ".py":
            assert len(relative.parts) == 1, f"{path} is in a folder without __init__.py"
        else:
            matches = [relative.match(entry) for entry in data(package) if entry.count("/") == len(relative.parts) - 1]
            assert any(matches), f"{path} is no package data in setup.cfg"


def test_versions_agree():
    version = CONFIG["metadata"]["version"]
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for tag, status in ((f"v{version}", 0), ("v0.0.0", 1), (version, 1)):
        process = subprocess.run([sys.executable, ROOT / ".ci" / "check-tag", tag], capture_output=True, text=True)
        assert process.returncode == status, process.stderr
        assert bool(process.stderr) == bool(status)


def test_pre_commit_runs_the_pinned_ruff():
    pinned = re.search(r"^ruff==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert pinned and f"rev: v{pinned[1]}\n" in hooks


def test_no_file_names_a_place_on_somebody_s_machine():
    texts = {path: (ROOT / path).read_bytes() for path in tracked()}
    assert not [path for path, text in texts.items() if re.search(rb"/(?:home|root|Users|work|opt)/\w", text)]
