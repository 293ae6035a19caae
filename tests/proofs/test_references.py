"""Sources: every statement and every point of the online learner cites works of the bibliography."""

import pytest

import proofs
from models.memory.online_learner import NO_POINTS, POINTS
from models.references import citations, cited, references
from proofs.talks import TALKS

SOURCES = [s.source for s in proofs.STATEMENTS.values()] + [p.source for p in (*POINTS.values(), *NO_POINTS.values())]


def test_every_source_resolves_and_every_work_is_cited():
    used = {citation.reference.key for source in SOURCES for citation in citations(source)}
    assert set(references()) == used | set(TALKS)


def test_a_source_as_text():
    assert cited("gu2022s4, eq. 4; talk-mamba, slide 21") == "Gu et al. 2022 (S4), eq. 4; talk on Mamba, slide 21"
    assert citations("gu2022s4, eq. 4")[0].reference.url == "https://arxiv.org/abs/2111.00396"
    assert cited("hillis1986") == "Hillis and Steele 1986"
    assert citations("hillis1986")[0].reference.url == "https://doi.org/10.1145/7902.7903"


def test_an_unknown_key_is_named():
    message = r"^source 'gu2022s4; Gu 2022, eq. 1': 'Gu 2022' is no key of references.bib$"
    with pytest.raises(ValueError, match=message):
        cited("gu2022s4; Gu 2022, eq. 1")
    with pytest.raises(ValueError, match=r"'Plato' is no key"):
        proofs.identity("All is one", source="Plato", register=False)(lambda: (1, 1))
