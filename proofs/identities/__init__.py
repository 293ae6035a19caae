"""The statements, a file for each chapter. Importing this package registers all of them.

A chapter says with `CHAPTER` which number it has; chapters with the same number follow one another by name.
"""

import importlib
import pkgutil

from proofs.checker.statements import STATEMENTS

CHAPTERS = sorted(
    (importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)),
    key=lambda chapter: (chapter.CHAPTER, chapter.__name__),
)

_order = [chapter.__name__.rpartition(".")[2] for chapter in CHAPTERS]
for _name in sorted(STATEMENTS, key=lambda name: _order.index(STATEMENTS[name].chapter)):
    STATEMENTS[_name] = STATEMENTS.pop(_name)
