"""Selection of files by names on the command line, and reproducible samples of their mutants."""

from __future__ import annotations

import difflib
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from proofs.mutate.placing import ROOT, module_name
from proofs.mutate.verdicts import Mutant

GROUPS = {  # what is judged where nothing is named
    "mechanisms": ("models/attention", "models/memory", "models/recurrent", "models/ssm")
    + ("models/sequences.py", "models/linear_systems.py"),
    "blocks": ("models/blocks",),
    "kernels": ("models/kernels",),
    "primitives": ("minigrad/primitives",),
}


def select_files(names: Iterable[str] | None = None) -> list[str]:
    """Return the files of the repository that names choose; without names, those of all groups.

    A name is that of a group, a module as `python -m models list` spells it (memory.delta_rule), an import path, a
    path, a folder or a package, or a pattern of such. Raises LookupError, with the nearest name, for another.
    """
    files = sorted(p.relative_to(ROOT).as_posix() for x in ("minigrad", "models") for p in (ROOT / x).rglob("*.py"))
    spelled = {file: _spellings(file) for file in files}
    chosen: dict[str, None] = {}
    for name in names or GROUPS:
        patterns = GROUPS.get(name, (name.rstrip("/"),))
        found = [file for file in files if any(fnmatchcase(x, p) for x in spelled[file] for p in patterns)]
        if not found:
            known = {*GROUPS, *(x for spellings in spelled.values() for x in spellings)}
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise LookupError(f"no module, path or pattern is {name!r}; the nearest name is {near[0]!r}")
        chosen |= dict.fromkeys(found)
    return list(chosen)


def _spellings(file: str) -> set[str]:
    """Return all names of a file, and of the folders and packages that it is in."""
    module, paths = module_name(file), {file}
    while "/" in file:
        paths.add(file := file.rpartition("/")[0])
    modules = {module}
    while "." in module:
        modules.add(module := module.rpartition(".")[0])
    return paths | modules | {x.removeprefix("models.") for x in modules}


def group_of(file: str) -> str:
    """Return the group that a file is in; for one in none, its folder."""
    inside = (name for name, paths in GROUPS.items() for path in paths if file == path or file.startswith(f"{path}/"))
    return next(inside, file.rpartition("/")[0])


def sample(mutants: Iterable[Mutant], count: int, seed: int) -> list[Mutant]:
    """Return a sample of `count` mutants, from each file in proportion to how many it has.

    Within a file, and among files of which fewer than one mutant would be taken, a hash decides. A smaller sample is
    the beginning of a larger one.
    """
    by_file: Mapping[str, list[Mutant]] = defaultdict(list)
    for mutant in mutants:
        by_file[mutant.file].append(mutant)
    places: list[tuple[float, Mutant]] = []
    for file, members in by_file.items():
        members.sort(key=lambda mutant: _uniform(seed, mutant))
        first = _uniform(seed, file)
        places += [((i + first) / len(members), mutant) for i, mutant in enumerate(members)]
    return [mutant for _, mutant in sorted(places, key=lambda place: place[0])[:count]]


def _uniform(seed: int, key: object) -> float:
    return int.from_bytes(hashlib.sha256(f"{seed} {key!r}".encode()).digest()[:8], "big") / 2**64
