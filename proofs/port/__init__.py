"""The kit for ports: is a rewrite of a form in another framework right, gradients included, and where is it wrong?

    from proofs.port import check

    report = check(my_port.chunk_delta_rule, "memory.delta_rule.chunkwise", layout="b t h k")
    assert report.right, report

`check` compares a port with a form in all cases, and checks the statements that the form takes part in with the port in
its place; `compare` compares any two functions on inputs that are given. Both run the port in this process. The command
line, `python -m proofs port my_port.py:chunk_delta_rule --as memory.delta_rule.chunkwise`, runs it in one of its own.
"""

from proofs.port.cases import CASES
from proofs.port.checking import Report, check
from proofs.port.comparing import compare

__all__ = ["CASES", "Report", "check", "compare"]
