"""pipeline.py: the laws of composition, fusion by hand, and fingerprints that are the same everywhere."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.pipeline import (
    RRF,
    Cut,
    Scale,
    Stage,
    Sum,
    ZScore,
    advance,
    hash_description,
    merge,
    reciprocal_ranks,
    roundrobin,
    rrf,
    standardize,
    watch,
    zscore,
)
from crosslens.runs import Hit, Run, rank_hits
from hypothesis import example, given
from hypothesis import strategies as st
from stand_ins.table import table


@dataclass(frozen=True)
class Fixed(Stage):
    """Gives every query the same hits."""

    scores: tuple[tuple[str, float], ...]
    batch: int = field(default=8, compare=False)

    def apply(self, run: Run, count: Counter[str]) -> Run:
        count["queries"] += len(run)
        return run.ranking({query.id: self.scores for query in run.queries})


A = Fixed((("x", 3.0), ("y", 2.0), ("z", 1.0)))
B = Fixed((("y", 0.9), ("w", 0.5), ("x", 0.1)))
EMPTY = Fixed(())
TWO = Run.of(["one", "two"])
score_maps = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-1e6, 1e6), max_size=8)


def scores(run: Run, query: str = "1") -> dict[str, float]:
    return dict(run[query])


def test_rrf_by_hand():
    # x: 1/61 + 1/63, y: 1/62 + 1/61, z: 1/63, w: 1/62
    found = rrf(A, B)(TWO)
    assert [hit.id for hit in found["1"]] == ["y", "x", "w", "z"]
    assert scores(found) == pytest.approx({"y": 1 / 62 + 1 / 61, "x": 1 / 61 + 1 / 63, "w": 1 / 62, "z": 1 / 63})
    assert scores(rrf(A, B, k=0)(TWO)) == pytest.approx({"x": 1 + 1 / 3, "y": 1 / 2 + 1, "w": 1 / 2, "z": 1 / 3})
    assert found["2"] == found["1"]


def test_roundrobin_by_hand():
    # A: x y z; B: y w x. In turn: x y, (y) w, z (x).
    found = roundrobin(A, B)(TWO)
    assert [hit.id for hit in found["1"]] == ["x", "y", "w", "z"]
    assert [hit.id for hit in roundrobin(B, A)(TWO)["1"]] == ["y", "x", "w", "z"]
    assert found["2"] == found["1"]
    assert str(roundrobin(A, B)) == "roundrobin(fixed, fixed)"


def test_sum_by_hand_gives_an_absent_document_the_lowest_score():
    # A lacks w: 1.0; B lacks z: 0.1
    assert scores((A + B)(TWO)) == pytest.approx({"x": 3.1, "y": 2.9, "z": 1.1, "w": 1.5})
    assert scores((A + 2 * B)(TWO)) == pytest.approx({"x": 3.2, "y": 3.8, "z": 1.2, "w": 2.0})
    assert scores((A + EMPTY)(TWO)) == scores(A(TWO))


def test_z_scores_by_hand():
    deviation = math.sqrt(2 / 3)
    assert scores(zscore(A)(TWO)) == pytest.approx({"x": 1 / deviation, "y": 0, "z": -1 / deviation})
    assert zscore(EMPTY)(TWO)["1"] == ()
    assert scores(zscore(Fixed((("a", 5.0), ("b", 5.0))))(TWO)) == {"a": 0.0, "b": 0.0}


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20), st.floats(1e-12, 1e6), st.floats(-10, 10))
def test_z_scores_do_not_depend_on_scale(values, scale, shift):
    plain = standardize(values)
    if np.std(values) < 1e-3:  # near-equal scores may count as equal under one scale's rounding
        return
    assert standardize([scale * value for value in values]) == pytest.approx(plain, abs=1e-6)
    assert standardize([value + shift for value in values]) == pytest.approx(plain, abs=1e-6)
    assert plain.mean() == pytest.approx(0, abs=1e-9)
    assert plain.std() == pytest.approx(1)


def test_z_scores_of_tiny_probabilities_are_not_lost_and_rounding_noise_is_not_magnified():
    assert standardize([1e-15, 3e-15]).tolist() == pytest.approx([-1, 1])
    assert standardize([0.1 + 0.2, 0.3]).tolist() == [0, 0]
    assert standardize([]).tolist() == []
    assert standardize([7]).tolist() == [0]


def test_composition_is_associative():
    c = Cut(2)
    assert (A >> zscore(c)) == ((A >> c) >> ZScore())
    assert A >> (c >> (ZScore() >> Cut(1))) == ((A >> c) >> ZScore()) >> Cut(1)
    assert (A >> (c >> ZScore())).fingerprint == ((A >> c) >> ZScore()).fingerprint
    assert (A + B) + EMPTY == A + (B + EMPTY) == Sum((A, B, EMPTY))
    assert Sum((A, B, B, A)) == (A + B) + (B + A)


def test_operators_bind_as_written():
    assert A % 2 >> ZScore() == (A % 2) >> ZScore()
    assert (A >> Scale(0.5)) % 2 == 0.5 * A % 2
    assert A + B % 1 == A + (B % 1)
    assert str(A % 2 >> ZScore()) == "fixed >> % 2 >> zscore"
    assert str(rrf(A, 2 * B)) == "rrf(fixed, fixed >> * 2)"


@given(score_maps, score_maps)
@example({"a": 0.0, "b": 5.82e-203}, {})
def test_laws(first, second):
    a, b = Fixed(tuple(first.items())), Fixed(tuple(second.items()))
    assert (a % 3 % 5)(TWO) == (a % 3)(TWO)
    assert (a % 5 % 3)(TWO) == (a % 3)(TWO)
    assert scores((a + b)(TWO)) == pytest.approx(scores((b + a)(TWO)))
    assert rrf(a, b)(TWO).hits.keys() == rrf(b, a)(TWO).hits.keys()
    assert scores(rrf(a, b)(TWO)) == pytest.approx(scores(rrf(b, a)(TWO)))
    assert [h.id for h in rrf(a)(TWO)["1"]] == [h.id for h in a(TWO)["1"]]
    assert (1 * a)(TWO) == a(TWO)
    assert set(scores((a + b)(TWO))) == first.keys() | second.keys()
    order = [hit.id for hit in zscore(a)(TWO)["1"]]
    values = [first[doc] for doc in order]
    assert all(x >= y or math.isclose(x, y, rel_tol=1e-8, abs_tol=1e-8 * max(map(abs, values)))
               for x, y in pairwise(values))  # fmt: skip


def test_reciprocal_ranks_of_nothing():
    assert reciprocal_ranks([]) == {}
    assert reciprocal_ranks([(), (Hit("a", 2.0),)]) == {"a": 1 / 61}


@table(
    ("make", "message"),
    [
        (lambda: A % 0, "at least 1, not 0"),
        (lambda: -1 * A, "0 or more"),
        (lambda: math.nan * A, "0 or more"),
        (lambda: math.inf * A, "0 or more"),
        (lambda: rrf(), "at least one stage"),
        (lambda: roundrobin(), "at least one stage"),
        (lambda: RRF((A,), -1), "0 or more, not -1"),
    ],
)
def test_senseless_parameters_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_stage_that_returns_nan_is_named():
    with pytest.raises(InputError, match="'x' has the score nan"):
        Fixed((("x", math.nan),))(TWO)


def test_the_manifest_has_every_stage_once():
    manifest = (rrf(A, B % 2) >> ZScore())(TWO).manifest
    names = [record.stage for record in manifest.records]
    assert names == ["fixed", "fixed", "% 2", "rrf(fixed, fixed >> % 2)", "zscore"]
    assert manifest.total("queries") == 4
    # A branch repeats what came before the fork; equal stages that ran twice did run twice.
    forked = (A >> (ZScore() + ZScore()))(TWO).manifest
    assert [record.stage for record in forked.records] == ["fixed", "zscore", "zscore", "(zscore + zscore)"]
    assert A(TWO).manifest.records[0].fingerprint == A.fingerprint
    assert all(record.seconds >= 0 for record in manifest.records)


def test_a_stage_takes_plain_strings_and_keeps_the_queries_and_documents():
    run = A(["hello"])
    assert run.queries == (Item("1", text="hello"),)

    class Docs:
        def get(self, ids):
            return [Item(id) for id in ids]

    base = Run(TWO.queries, docs=Docs())
    assert rrf(A, B)(base).docs is base.docs
    assert [item.id for item in (A + B)(base).items("1")] == ["x", "y", "w", "z"]


def test_fingerprints_are_equal_for_equal_stages_alone():
    assert A.fingerprint == Fixed(A.scores, batch=99).fingerprint  # speed is not part of it
    assert Fixed(A.scores, batch=99) == A
    prints = [
        s.fingerprint
        for s in (A, B, A % 2, A % 3, 2 * A, 3 * A, A + B, B + A, rrf(A, B), rrf(A, B, k=5), zscore(A), A >> B)
    ]
    assert len(set(prints)) == len(prints)
    assert all(len(each) == 12 and int(each, 16) >= 0 for each in prints)


def test_fingerprints_are_the_same_in_another_process_and_stay_so():
    code = "from crosslens.pipeline import *; print((Cut(7) >> rrf(Scale(0.5), ZScore(), k=10)).fingerprint)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == (Cut(7) >> rrf(Scale(0.5), ZScore(), k=10)).fingerprint
    # A constant: caches and manifests of earlier versions must stay valid. Change it only with a good reason.
    assert Cut(7).fingerprint == "3f8aa6e78dca"


def test_what_has_no_stable_description_is_refused():
    def outer(n: int):
        def inner(x: int) -> int:
            return x + n

        return inner

    assert hash_description(rank_hits) == hash_description(rank_hits)
    assert hash_description(Path("a/b")) == hash_description("a/b")
    assert hash_description({"b": 1, "a": 2}) == hash_description({"a": 2, "b": 1})
    assert hash_description(frozenset("abc")) == hash_description(frozenset("cba"))
    # Two closures share a name and differ in what they hold; so do lambdas and bound methods.
    for unstable in (outer(1), lambda: 1, [].append, np.zeros(2), object()):
        with pytest.raises(TypeError, match="no stable description"):
            hash_description(unstable)


def test_merge_takes_scores_as_they_are():
    merged = merge(Fixed((("a", 3.0), ("b", 1.0))), Fixed((("c", 2.0), ("b", 2.5))))(["x"])
    assert [tuple(hit) for hit in merged["1"]] == [("a", 3.0), ("b", 2.5), ("c", 2.0)]
    with pytest.raises(InputError, match="at least one"):
        merge()


def test_a_pipeline_is_rebuilt_from_its_parts():
    pipeline = rrf(A % 3, 0.5 * zscore(B) + EMPTY, k=20) >> Cut(2)
    assert [part for part in pipeline.parts if isinstance(part, Fixed)] == [A, B, EMPTY]
    assert pipeline.map(lambda part: part) == pipeline
    swapped = pipeline.map(lambda part: B if part == A else part)
    assert swapped == (rrf(B % 3, 0.5 * zscore(B) + EMPTY, k=20) >> Cut(2))
    assert swapped.fingerprint != pipeline.fingerprint


def test_who_watches_gets_totals_and_only_inside_the_block():
    seen: list[int] = []
    inner: list[int] = []
    advance(3)  # nobody watches
    with watch(seen.append):
        advance()
        with watch(inner.append):
            advance(4)
        advance(2)
        advance(0)
    advance(5)
    assert (seen, inner) == ([1, 3], [4])


@dataclass(frozen=True)
class Opaque(Stage):
    """Has no stable description, and does work that must not begin."""

    what: object = object()

    def apply(self, run: Run, count: Counter[str]) -> Run:
        raise AssertionError("the work has begun")


@pytest.mark.parametrize("late", [Opaque(), Opaque() >> A, Opaque() % 3], ids=["itself", "first", "cut"])
def test_a_stage_without_a_stable_description_fails_before_any_work(late):
    worked = []

    @dataclass(frozen=True)
    class Works(Fixed):
        def apply(self, run: Run, count: Counter[str]) -> Run:
            worked.append(run)
            return super().apply(run, count)

    before = Works((("x", 1.0),))
    for pipeline in (late, before >> late, before + late, rrf(before, A >> late)):
        with pytest.raises(TypeError, match="object has no stable description"):
            pipeline(TWO)
    assert not worked


def test_a_cutoff_of_numpy_is_the_number():
    assert Cut(np.int64(3)) == Cut(3)
    assert Cut(np.int64(3)).fingerprint == Cut(3).fingerprint
