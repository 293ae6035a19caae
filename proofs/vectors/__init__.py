"""Golden vectors: inputs, results, states and gradients of every mechanism, for ports that cannot call Python.

`python -m proofs vectors OUT/` writes them; `manifest.json` there says what they hold and promise. `arithmetic` has the
numbers they are computed with, `inputs` the cases, `evaluate` results and tolerances, `formats` the bytes of the files.
"""
