"""Passages that count together with their whole documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from crosslens.commands.index import index_command
from crosslens.encoders.base import unit
from crosslens.errors import InputError
from crosslens.indexes.base import Index
from crosslens.indexes.moments import KAPPA
from crosslens.indexes.passages import PassageIndex, split_text
from crosslens.indexes.registry import create_index
from crosslens.indexes.storage.card import JointWindows, Windows
from crosslens.indexes.storage.storage import read_card
from crosslens.items import Item
from tiny.words import QUERIES, Words, collection

KINDS = ["lance", pytest.param("faiss:Flat", marks=pytest.mark.skipif(not find_spec("faiss"), reason="no faiss"))]

JOINT = JointWindows(6, 3, share=0.3)


def encode_both(item: Item) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of a document's passages [n, dim], and that of the whole [1, dim]."""
    encoder, text = Words(), item.text or ""
    (spans,) = encoder.token_spans([text])
    parts = [Item("part", text[start:end]) for start, end in split_text(text, spans, JOINT)]
    vectors = np.concatenate([batch.vectors for batch in encoder.encode([*parts, item], "document")])
    return vectors[:-1], vectors[-1:]


def check_joint_scores(index: Index, items: Sequence[Item], correct: bool) -> None:
    """Each document has 0.7 of its own score and 0.3 of its best passage's, both corrected or not."""
    pairs = {item.id: encode_both(item) for item in items}
    (space,) = index.card.spaces
    moments = index.snapshot.statistics.get(space)
    for lang in {item.lang for item in items} if correct else ():
        mine = [item.id for item in items if item.lang == lang]
        sums = np.concatenate([0.3 * pairs[id][0] + 0.7 * pairs[id][1] for id in mine])
        mean = (sums.sum(0) + KAPPA * moments.document_mean(None, "text")) / (len(sums) + KAPPA)
        pairs |= {id: (unit(pairs[id][0] - mean), unit(pairs[id][1] - mean)) for id in mine}
    found = index.search(QUERIES, 200, exact=True, correct=correct, merge=0)
    for query in QUERIES:
        (batch,) = Words().encode([query], "query")
        (asked,) = moments.correct(batch.vectors, [query.lang], ["text"], "query") if correct else batch.vectors
        scores = {
            id: 0.7 * float(whole[0] @ asked) + 0.3 * float((own @ asked).max()) for id, (own, whole) in pairs.items()
        }
        assert {hit.id: hit.score for hit in found[query.id]} == pytest.approx(scores, abs=2e-3)
        first = index.search([query], 5, exact=True, correct=correct, merge=0)[query.id]
        assert [hit.score for hit in first] == pytest.approx(sorted(scores.values(), reverse=True)[:5], abs=2e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("correct", [True, False])
def test_a_document_has_the_sum_of_its_own_score_and_that_of_its_best_passage(kind: str, correct: bool) -> None:
    index, encoder, items = create_index("memory://", kind=kind, passages=JOINT), Words(), collection()
    index.add(items, encoder)
    assert isinstance(index, PassageIndex)
    long = sum(len((item.text or "").split()) > JOINT.window for item in items)
    assert 20 < long < 110
    # A document of one passage is encoded once; others once more than they have passages, twice where a portion ends.
    assert 0 <= len(encoder.encoded) - len(index.passages) - long <= 3
    check_joint_scores(index, items, correct)
    assert index.get([item.id for item in items]) == items
    assert set(index.remove([item.id for item in items[::3]])) == {item.id for item in items[::3]}
    left = [item for n, item in enumerate(items) if n % 3]
    left[0] = replace(left[0], text="w1 w2 w3 w4")
    left[1] = replace(left[1], text=" ".join(f"w{n}" for n in range(30)))
    index.add(left, encoder)
    check_joint_scores(index, left, correct)


def test_approximate_search_has_the_scores_of_exact_search() -> None:
    index = create_index("memory://", passages=JOINT)
    index.add(collection(), Words())
    assert index.build("IVF_FLAT").at[10] > 0.9
    exact, found = (index.search(QUERIES, 5, exact=exact) for exact in (True, False))
    for query in QUERIES:
        scores = {hit.id: hit.score for hit in exact[query.id]}
        assert any(hit.id in scores for hit in found[query.id])
        assert all(hit.score == pytest.approx(scores[hit.id], abs=1e-3) for hit in found[query.id] if hit.id in scores)


def test_what_is_encoded_again_of_a_document_whose_whole_counts(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(24)]
    index, encoder = create_index(tmp_path, passages=JOINT), Words()

    def count(text: Sequence[str], **meta: int) -> int:
        """How many texts are encoded for it, the whole once for the first passage and once for others; scores are right."""
        before, item = len(encoder.encoded), Item("a", " ".join(text), lang="eng", meta=meta)
        index.add([item], encoder)
        check_joint_scores(index, [item], correct=False)
        assert index.get(["a"]) == [item]
        return len(encoder.encoded) - before

    assert count(words) == 7 + 2
    assert count(words, year=2000) == 0  # metadata alone
    assert count([*words[:-1], "other"]) == 7 + 2  # each of them, as the whole is another
    assert count(words[:6]) == 1  # the first passage, which is the whole document now
    assert count(words) == 7 + 2


def test_an_index_with_whole_documents_says_so(tmp_path: Path) -> None:
    windows = JointWindows(6, 3, share=0.25)
    index = create_index(tmp_path, passages=windows)
    index.add(collection(20), Words())
    card = read_card(tmp_path)
    assert card.passages is not None
    assert card.passages.windows == windows
    assert "of 6 tokens each, a new one every 3, for 0.25 of the score, beside whole documents" in str(index.info())
    for other in (Windows(6, 3), JOINT):
        with pytest.raises(
            InputError, match=r"\(stride 3\) for 0.25 of the score, beside whole documents, not of pass"
        ):
            create_index(tmp_path, passages=other)
    for kind in ("sparse", "late"):
        with pytest.raises(InputError, match=f"an index of kind {kind} cannot add up the scores of passages and of"):
            create_index("memory://", kind=kind, passages=windows)
    with pytest.raises(InputError, match="above 0 and below 1, not 1"):
        JointWindows(share=1)


def test_the_help_has_the_defaults_of_both_kinds_of_windows() -> None:
    hints = get_type_hints(index_command, include_extras=True)
    window, stride = (hints[name].__metadata__[0].help for name in ("window", "stride"))
    assert f"(default: {Windows.window}; {JointWindows.window} with --whole)" in window
    assert (Windows.of(10).stride, Windows.of(10, whole=True).stride) == (5, 10)
    assert "(default: half the window; all of it with --whole)" in stride
