"""The command `python -m proofs vectors`: write golden vectors for ports to languages that cannot call Python."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models.errors import UserError, known_name

Out = Annotated[Path, typer.Argument(help="The folder to write, a new or an empty one.", metavar="OUT/")]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", help="A mechanism, memory.delta_rule, or one of its variants; may be given several times."),
]


def vectors(out: Out, only: Only = None) -> None:
    """Write inputs, outputs, states and gradients of every mechanism as .npz, .safetensors and JSON."""
    console, start = Console(), time.perf_counter()
    try:
        names = write(out, only or (), lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))
    except UserError as error:
        Console(stderr=True).print(f"proofs: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    seconds = time.perf_counter() - start
    done = f"{out}: manifest.json and vectors of {len(names)} mechanisms and variants, {seconds:.0f} s"
    console.print(done, markup=False, highlight=False, soft_wrap=True)


def write(out: Path, only: Sequence[str] = (), progress: Callable[[str], None] = lambda line: None) -> list[str]:
    """Write the vectors into a new or empty folder, all of them or those of some mechanisms; return their names.

    They are written beside it and renamed at the end, so that there is never a part of them. Raises UserError where a
    name is unknown, the folder cannot be written or is not empty, or mpmath is missing.
    """
    if find_spec("mpmath") is None:
        raise UserError("vectors: mpmath is missing, which the extra 'check' installs: pip install -e '.[check]'")
    from proofs.vectors import evaluate, formats, inputs, manifest

    subjects = evaluate.subjects()
    selected = _select({name: subject.mechanism for name, subject in subjects.items()}, only)
    folder = _temporary_folder(out)
    try:
        entries = {}
        for name in selected:
            subject = subjects[name]
            found = {case.name: evaluate.evaluate(subject, case) for case in inputs.cases(subject.form)}
            arrays = {f"{case}/{key}": x for case, vector in found.items() for key, x in vector.arrays.items()}
            about = {"name": name, "vectors": str(inputs.VERSION)}
            files = {
                f"{name}.json": formats.json_lines(arrays),
                f"{name}.npz": formats.npz(arrays),
                f"{name}.safetensors": formats.safetensors(arrays, about),
            }
            for file, data in files.items():
                (folder / file).write_bytes(data)
            entries[name] = manifest.entry(subject, found, files)
            progress(f"{name}: {', '.join(found)}")
        (folder / "manifest.json").write_bytes(manifest.manifest(entries))
        if out.exists():
            out.rmdir()
        folder.rename(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return selected


def _select(mechanisms: dict[str, str], only: Sequence[str]) -> list[str]:
    """Return the names that are asked for, or whose mechanisms are; all by default."""
    choices = dict.fromkeys([*mechanisms.values(), *mechanisms])
    wanted = {known_name(name, "only", choices) for name in only}
    return [name for name, mechanism in mechanisms.items() if not wanted or {name, mechanism} & wanted]


def _temporary_folder(out: Path) -> Path:
    """Return a new folder beside `out`. Raises UserError where `out` is not new or empty, or cannot be made."""
    try:
        if out.exists() and not out.is_dir():
            raise UserError(f"{out} is a file, expected a new or an empty folder")
        if out.is_dir() and any(out.iterdir()):
            raise UserError(f"{out} is not empty, expected a new or an empty folder")
        if not out.resolve().parent.is_dir():
            raise UserError(f"{out} cannot be written: there is no folder {out.parent}")
        if out.is_dir() and not os.access(out, os.W_OK):
            raise UserError(f"{out} cannot be written: Permission denied")
        folder = Path(tempfile.mkdtemp(prefix=f".{out.resolve().name}-", dir=out.resolve().parent))
        folder.chmod(0o755)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from None
    return folder
