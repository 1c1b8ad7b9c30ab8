"""Results of stages are computed once, kept whole, and taken again."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace

import pyarrow.parquet as pq
import pytest
from crosslens import Item, Run, Stage, rrf
from crosslens.evaluation.experiment.store import KeptStage, ResultStore
from crosslens.pipeline import Cut
from crosslens.runs import Probe


@dataclass(frozen=True)
class Says(Stage):
    """Gives every query the same hits, and notes that it was asked."""

    hits: tuple[tuple[str, float], ...]
    asked: list[str] = field(default_factory=list, compare=False)

    def apply(self, run: Run, count: Counter[str]) -> Run:
        self.asked.append("!")
        count["queries"] += len(run)
        return run.ranking({query.id: self.hits for query in run.queries})


def test_a_stage_is_computed_once_for_one_input(tmp_path):
    store = ResultStore(tmp_path, "content", "1")
    stage, taken = Says((("a", 1 / 3), ("b", -2e-300))), []
    queries = [Item("q1", "x", lang="eng", meta={"n": 1}), Item("q2", "y")]
    first = KeptStage(stage, store, taken)(queries)
    second = KeptStage(stage, store, taken)(queries)
    assert stage.asked == ["!"]
    assert taken == ["says"]
    assert second == first
    assert second["q1"][0].score == 1 / 3
    assert second.queries == first.queries
    assert second.manifest == first.manifest
    # Another query text, other documents, another program: another result.
    KeptStage(stage, store, taken)([Item("q1", "z"), Item("q2", "y")])
    KeptStage(stage, ResultStore(tmp_path, "others", "1"), taken)(queries)
    KeptStage(stage, ResultStore(tmp_path, "content", "2"), taken)(queries)
    assert len(stage.asked) == 4


def test_an_unfinished_result_is_never_used(tmp_path):
    store = ResultStore(tmp_path, "content", "1")
    stage = Says((("a", 1.0),))
    queries = [Item("q", "x")]
    KeptStage(stage, store, [])(queries)
    (done,) = tmp_path.glob("*.parquet")
    done.rename(done.with_name(f".{done.name}.1.partial"))  # as a killed process leaves it
    KeptStage(stage, store, [])(queries)
    assert len(stage.asked) == 2


@pytest.mark.parametrize("checked", [True, False])
def test_a_damaged_result_is_computed_again(tmp_path, caplog, checked):
    """With its checksum whatever bit is another; without, as earlier versions left results, what cannot be read."""
    store = ResultStore(tmp_path, "content", "1")
    stage = Says((("a", 1.0), ("b", 0.5)))
    queries = [Item("q", "some words")]
    right = KeptStage(stage, store, [])(queries)
    (done,) = tmp_path.glob("*.parquet")
    data = done.read_bytes()
    flipped = [data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :] for at in range(0, len(data), 97)]
    for number, harmed in enumerate([data[:-9], data[: len(data) // 2], b"", *(flipped if checked else [])], 2):
        done.write_bytes(harmed)
        if not checked:
            done.with_suffix(".sha256").unlink()
        caplog.clear()
        assert KeptStage(stage, store, [])(queries).hits == right.hits
        assert len(stage.asked) == number
        assert "is damaged" in caplog.text
        taken: list[str] = []
        KeptStage(stage, store, taken)(queries)
        assert taken == ["says"]


def test_a_kept_stage_is_described_as_the_stage_itself(tmp_path):
    stage = Says((("a", 1.0),))
    kept = KeptStage(stage, ResultStore(tmp_path, "", ""), [])
    assert (kept >> Cut(3)).fingerprint == (stage >> Cut(3)).fingerprint
    assert rrf(kept, kept).fingerprint == rrf(stage, stage).fingerprint


@dataclass(frozen=True)
class AddsProbes(Stage):
    """Rewrites every query into a document and the query itself."""

    weight: float = 1.0
    group: int = 0

    def apply(self, run: Run, count: Counter[str]) -> Run:
        probes = {
            query.id: (
                Probe(Item("d", "a hypothetical document"), "document", self.weight, self.group),
                Probe(query, "query"),
            )
            for query in run.queries
        }
        return replace(run, probes=probes)


def test_probes_are_kept_and_change_what_comes_after(tmp_path):
    store, taken = ResultStore(tmp_path, "content", "1"), []
    queries = [Item("q", "x", image=b"a picture")]
    adds = KeptStage(AddsProbes(0.25, 3), store, taken)
    first = adds(queries)
    again = adds(queries)
    assert taken == ["addsprobes"]
    assert again == first
    assert again.probes["q"] == (
        Probe(Item("d", "a hypothetical document"), "document", 0.25, 3),
        Probe(queries[0], "query"),
    )
    says = Says((("a", 1.0),))
    for run in (first, Run.of(queries), again, AddsProbes(0.5, 3)(queries), AddsProbes(0.25, 2)(queries)):
        KeptStage(says, store, taken)(run)
    assert len(says.asked) == 4


def test_probes_that_earlier_versions_kept_have_the_weight_1(tmp_path):
    store, queries = ResultStore(tmp_path, "content", "1"), [Item("q", "x")]
    (made,) = KeptStage(AddsProbes(), store, [])(queries).probes.values()
    (result,) = tmp_path.glob("*.parquet")
    table = pq.read_table(result)
    about = json.loads(table.schema.metadata[b"crosslens"])
    about["probes"] = {id: [probe[:2] for probe in some] for id, some in about["probes"].items()}
    pq.write_table(table.replace_schema_metadata({"crosslens": json.dumps(about)}), result)
    result.with_suffix(".sha256").unlink()
    assert store.get(result.stem, Run.of(queries), None).probes == {"q": made}


def test_a_document_among_the_probes_keeps_its_picture(tmp_path):
    found = Item("d", "words", image=b"a picture", meta={"year": 1})

    class Documents:
        def get(self, ids):
            assert ids == ["d"]
            return [found]

    run = replace(Run.of([Item("q", "x")]), docs=Documents())
    made = replace(run, probes={"q": (Probe(found, "document", only="vector"),)})
    store = ResultStore(tmp_path, "content", "1")
    store.put("key", made, [])
    assert store.get("key", run, run.docs) == made
