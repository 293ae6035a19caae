"""All chapters: importing this states what each of them claims, in the order in which they are read."""

from proofs import (
    delta_rule,
    discretize,
    every_mechanism,
    feature_maps,
    gated_delta_rule,
    gated_linear_attention,
    hippo,
    hopfield,
    linear_attention,
    lti,
    nplr,
    online_learner,
    orders,
    s4,
    selective,
    titans,
    titans_blocks,
    ttt,
)
from proofs.statements import STATEMENTS

CHAPTERS = (
    every_mechanism,
    linear_attention,
    feature_maps,
    gated_linear_attention,
    delta_rule,
    gated_delta_rule,
    ttt,
    titans,
    titans_blocks,
    online_learner,
    hopfield,
    hippo,
    nplr,
    discretize,
    orders,
    lti,
    s4,
    selective,
)

_order = [chapter.__name__.rpartition(".")[2] for chapter in CHAPTERS]
for _name in sorted(STATEMENTS, key=lambda name: _order.index(STATEMENTS[name].chapter)):
    STATEMENTS[_name] = STATEMENTS.pop(_name)
