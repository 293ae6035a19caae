"""Text files: one code point for one symbol, docstrings that name their subject, lines of at most 120 characters."""

import ast
import unicodedata
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUFFIXES = {".py", ".cu", ".cuh", ".hpp", ".cpp", ".md", ".bib", ".cfg", ".toml"}
TOP = [path for path in sorted(ROOT.iterdir()) if not path.name.startswith(".")]
FILES = [path for top in TOP for path in [top, *sorted(top.rglob("*"))] if path.suffix in SUFFIXES]
BAR, OTHER_BARS = "\u0304", "\u0305\u00af\u02c9"


def wrong_bars(text):
    """Return the characters of a text that show a bar and are not a base letter and U+0304."""
    return {c for c in text if c in OTHER_BARS or (c != BAR and BAR in unicodedata.normalize("NFD", c))}


def test_a_bar_is_a_base_letter_and_a_combining_macron():
    assert len(FILES) > 400
    wrong = {path.relative_to(ROOT): wrong_bars(path.read_text(encoding="utf-8")) for path in FILES}
    assert {path: {f"U+{ord(c):04X}" for c in bars} for path, bars in wrong.items() if bars} == {}


def test_precomposed_letters_and_overlines_are_wrong_bars():
    assert wrong_bars("A\u0304 x\u0304 dA \u00e9") == set()
    assert wrong_bars("\u0100 x\u0305 \u00af") == {"\u0100", "\u0305", "\u00af"}


def test_lines_of_the_cuda_sources_fit_120_columns():
    sources = [path for path in FILES if path.suffix in {".cu", ".cuh", ".hpp", ".cpp"}]
    lines = [(path.name, i, line) for path in sources for i, line in enumerate(path.read_text("utf-8").splitlines(), 1)]
    assert len(sources) > 30
    assert [(name, i) for name, i, line in lines if len(line) > 120] == []


def asks(docstring):
    """Return whether a docstring begins with a question word instead of a verb or a noun."""
    return (docstring or "").partition(" ")[0] in {"How", "What", "When", "Where", "Whether", "Which", "Who", "Why"}


def test_docstrings_begin_with_a_verb_or_with_what_they_describe():
    described = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found, read = [], 0
    for path in (path for path in FILES if path.suffix == ".py"):
        nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, described)]
        found += [(path.relative_to(ROOT), ast.get_docstring(node)) for node in nodes if asks(ast.get_docstring(node))]
        read += len(nodes)
    assert read > 5000
    assert found == []


def test_question_words_are_told_from_verbs():
    assert asks("What a mutant is.") and asks("How many there are.")
    assert not asks(None) and not asks("Return what is left.") and not asks("The number of verdicts.")
