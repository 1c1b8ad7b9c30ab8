"""runs.py: order, TREC files that all readers read alike, qrels."""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas
import pytest
import pytrec_eval
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.runs import Manifest, Record, Run, rank_hits, read_qrels
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins.pipes import read_pipe
from stand_ins.table import table

ids = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="\ufeff"), min_size=1, max_size=8
).filter(lambda text: not any(c.isspace() for c in text))
scores = st.one_of(
    st.floats(allow_nan=False),
    st.sampled_from([0.0, -0.0, 1.0, 1.0 + 1e-12, math.inf, -math.inf, 1e300, -1e300, 1e-320]),
)
hit_lists = st.dictionaries(ids, scores, max_size=30)


def run_of(hits: dict[str, dict[str, float]]) -> Run:
    return Run.of([Item(query) for query in hits]).ranking({q: found.items() for q, found in hits.items()})


def written_run(path: Path) -> list[tuple[str, str, float]]:
    return [(f[0], f[2], float(f[4])) for f in map(str.split, path.read_text(encoding="utf-8").splitlines())]


@given(st.dictionaries(ids, hit_lists, min_size=1, max_size=4))
@settings(max_examples=40)
def test_trec_round_trip_keeps_the_order_and_scores_strictly_fall_as_float32(tmp_path_factory, hits):
    path = tmp_path_factory.mktemp("run") / "a.trec"
    run = run_of(hits)
    run.to_trec(path)
    for query in hits:
        singles = [np.float32(score) for q, _, score in written_run(path) if q == query]
        assert all(a > b for a, b in pairwise(singles))
        assert np.isfinite(singles).all()
    again = Run.from_trec(path)
    for query in hits:
        assert [hit.id for hit in again[query]] == [hit.id for hit in run[query]]
    assert Run.from_trec(path, run.queries).queries == run.queries
    again.to_trec(path)
    assert Run.from_trec(path) == again


@given(st.dictionaries(ids, scores, min_size=2, max_size=20), st.randoms())
@settings(max_examples=40)
def test_a_written_run_gets_from_trec_eval_what_its_order_deserves(tmp_path_factory, hits, random):
    grades = {doc: random.choice((0, 1)) for doc in hits} | {random.choice(list(hits)): 1}
    run = run_of({"q": hits})
    path = tmp_path_factory.mktemp("run") / "a.trec"
    run.to_trec(path)
    evaluator = pytrec_eval.RelevanceEvaluator({"q": grades}, {"recip_rank"})
    with path.open(encoding="utf-8") as lines:
        found = evaluator.evaluate(pytrec_eval.parse_run(lines))["q"]["recip_rank"]
    first = next(rank for rank, hit in enumerate(run["q"], 1) if grades[hit.id])
    assert found == pytest.approx(1 / first)


tied = st.sampled_from([1.0, 2.0, 2.0 + 1e-9, -3.5])


@given(st.dictionaries(st.text("abcXYZ09", min_size=1, max_size=3), tied, min_size=2, max_size=12))
@settings(max_examples=40)
def test_a_foreign_run_with_ties_is_read_in_trec_evals_order(tmp_path_factory, hits):
    path = tmp_path_factory.mktemp("run") / "b.trec"
    path.write_text("".join(f"q Q0 {doc} 1 {score!r} x\n" for doc, score in hits.items()))
    order = [hit.id for hit in Run.from_trec(path)["q"]]
    for doc in hits:  # trec_eval gives the rank of a document if it alone is relevant
        evaluator = pytrec_eval.RelevanceEvaluator({"q": {doc: 1}}, {"recip_rank"})
        with path.open() as lines:
            found = evaluator.evaluate(pytrec_eval.parse_run(lines))["q"]["recip_rank"]
        assert 1 / found == pytest.approx(order.index(doc) + 1)


def test_a_run_without_ties_keeps_its_scores_to_the_last_digit(tmp_path):
    path = tmp_path / "a.trec"
    path.write_text("1 Q0 a 7 0.12345678901234 x\n1 Q0 b 3 12.5 x\n")
    assert Run.from_trec(path)["1"] == (("b", 12.5), ("a", 0.12345678901234))


@given(st.dictionaries(ids, scores, max_size=20))
def test_ranked_is_by_score_then_id_and_does_not_depend_on_the_order_given(hits):
    found = rank_hits(hits.items())
    assert found == rank_hits(reversed(list(hits.items())))
    assert all((-a.score, a.id) < (-b.score, b.id) for a, b in pairwise(found))


def test_nan_and_repeated_documents_are_refused_with_the_document():
    with pytest.raises(InputError, match=r"'d' has the score nan"):
        rank_hits([("c", 1.0), ("d", math.nan)])
    with pytest.raises(InputError, match=r"'d' occurs 2 times"):
        rank_hits([("d", 1.0), ("c", 3.0), ("d", 2.0)])


def test_queries_of_a_run(tmp_path):
    run = Run.of(["first", Item("x", text="second")])
    assert [query.id for query in run.queries] == ["1", "x"]
    assert len(run) == 2
    assert repr(run.ranking({"1": [("a", 1.0), ("b", 0.5)]})) == "<Run: 2 queries, 2 hits>"
    assert list(run) == [(run.queries[0], ()), (run.queries[1], ())]
    assert run["nowhere"] == ()
    with pytest.raises(InputError, match="'1' occurs twice"):
        Run.of(["a", Item("1")])
    with pytest.raises(InputError, match="at least 1, not 0"):
        run.cut(0)
    with pytest.raises(InputError, match="no documents behind it"):
        run.items("1")


@table(
    ("line", "message"),
    [
        ("1 Q0 a 1 x tag", r"b\.trec:2: not a run line"),
        ("1 Q0 a 1 0.5", r"b\.trec:2: not a run line"),
        ("1 Q0 a b 1 0.5 tag", r"b\.trec:2: not a run line"),
        ("1 Q0 a 1 nan tag", r"b\.trec:2: the score is nan"),
        ("1 Q0 ok 2 0.5 tag", r"b\.trec:2: document 'ok' occurs twice for query '1'"),
    ],
)
def test_a_malformed_run_line_is_named(tmp_path, line, message):
    path = tmp_path / "b.trec"
    path.write_text(f"1 Q0 ok 1 1.0 tag\n{line}\n")
    with pytest.raises(InputError, match=message):
        Run.from_trec(path)


def test_run_and_topics_without_a_common_query_names_both_sides(tmp_path):
    path = tmp_path / "c.trec"
    path.write_text("q7 Q0 a 1 1 t\n")
    with pytest.raises(InputError, match=r"the run has q7, the topics have 1, 2"):
        Run.from_trec(path, [Item("1"), Item("2")])


def test_queries_outside_the_topics_are_left_out(tmp_path):
    path = tmp_path / "c.trec"
    path.write_text("1 Q0 a 1 1 t\n2 Q0 a 1 1 t\n")
    run = Run.from_trec(path, [Item("2", text="two"), Item("3")])
    assert run.hits == {"2": (("a", 1.0),)}


@table("bad", ["", "a b", "a\tb", "a\u3000b", "a\ud800"])
def test_an_id_that_no_trec_file_could_hold_is_refused_and_nothing_is_written(tmp_path, bad):
    path = tmp_path / "d.trec"
    for run in (run_of({"q": {bad: 1.0}}), run_of({bad: {"d": 1.0}})):
        with pytest.raises(InputError, match="cannot stand in a TREC run"):
            run.to_trec(path)
    with pytest.raises(InputError, match="run tag"):
        run_of({"q": {"d": 1.0}}).to_trec(path, tag=bad if bad != "a\ud800" else "")
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_lies_beside_the_run_and_counts_add_up(tmp_path):
    one, two = (Record("a", "0" * 12, 0.5, {"tokens": 3}), Record("b", "1" * 12, 1.0, {"tokens": 4, "calls": 1}))
    run = Run((Item("1"),), {}, Manifest((one, two)))
    run.to_trec(tmp_path / "r.trec", tag="mine")
    message = json.loads((tmp_path / "r.trec.manifest.json").read_text())
    assert message["tag"] == "mine"
    assert [stage["stage"] for stage in message["stages"]] == ["a", "b"]
    assert message["stages"][1]["counts"] == {"tokens": 4, "calls": 1}
    assert run.manifest.total("tokens") == 7
    assert run.manifest.total("nothing") == 0


def test_qrels_with_languages_in_column_2(tmp_path):
    path = tmp_path / "qrels.txt"
    path.write_text("1 zho d1 3\n1 FAS d2 0\n\n2 0 d3 1\n2 Q0 d1 -1\n", encoding="utf-8-sig")
    qrels, langs = read_qrels(path)
    assert qrels == {"1": {"d1": 3, "d2": 0}, "2": {"d3": 1, "d1": -1}}  # the byte order mark is not of the id
    assert langs == {"d1": "zho", "d2": "fas"}


NAMES = b"query-id\tcorpus-id\tscore\n"
JUDGED = b"q1\td1\t1\nq1\td2\t0\n\xc3\xbc\td1\t2.0\n"


@table("pack", [bytes, gzip.compress])
@table("ends", [b"\n", b"\r\n"])
@table("start", [b"", NAMES, b"\xef\xbb\xbf", b"\xef\xbb\xbf" + NAMES, b"\n" + NAMES])
def test_beir_qrels_with_and_without_a_line_of_names(tmp_path, start, ends, pack):
    path = tmp_path / "test.tsv"
    path.write_bytes(pack((start + JUDGED).replace(b"\n", ends)))
    assert read_qrels(path) == ({"q1": {"d1": 1, "d2": 0}, "ü": {"d1": 2}}, {})


@table(
    ("content", "message"),
    [
        (b"1 0 1 500000000\n", r"q:1: the grade 500000000 is above 1,000,000: are the columns in another order\?"),
        (b"1 0 d 1000000\n1 0 e 1000001\n", r"q:2: the grade 1000001 is above"),
        (b"1 0 d 1\n1 0 e " + b"9" * 4000 + b"\n", r"q:2: the grade 99999999999999999999 is above"),
        (b"1\td\t1000001\n", r"q:1: the grade 1000001 is above"),
        (NAMES + b"1\td\t1\n1\te\t1.5\n", r"q:3: not a qrels line `query-id TAB corpus-id TAB score`: '1\\te\\t1.5'"),
        (b"1\td\t1.5\n", r"q:1: not a qrels line `query-id"),  # a number is no name
        (b"1\td\tnan\n", r"q:1: not a qrels line `query-id"),
        (b"1\td\t1e999\n", r"q:1: not a qrels line `query-id"),
        ("1\td\t\u0663\n".encode(), r"q:1: not a qrels line `query-id"),
        (NAMES + b"1\td\t" + b"9" * 5000, r"q:2: not a qrels line"),
        (NAMES + b"1 0 d 1\n", r"q:2: not a qrels line `query-id"),
        (NAMES + b"1\td\t1\n1\td\t2\n", r"q:3: document 'd' has two grades for topic '1'"),
        (b"1 0 d 1_0\n", r"q:1: not a qrels line `topic 0"),  # which Python takes for 10
        ("1 0 d \u0663\n".encode(), r"q:1: not a qrels line `topic 0"),
        (b"1 d 1\n", r"q:1: not a qrels line `topic 0"),
        (NAMES, "no judgements"),
        (b"1 0 d 1\n1 0 d\n", r"q:2: not a qrels line"),
        (b"1 0 d 1.5\n", r"q:1: not a qrels line"),
        (b"1 0 d 1\n1 0 d 3\n", r"q:2: document 'd' has two grades for topic '1'"),
        (b"\n \n", "no judgements"),
        (b"1 0 d 1\n" * 5000 + b"1 0 \xff 1\n", r"q:5001: not UTF-8"),
    ],
)
def test_malformed_qrels_are_named(tmp_path, content, message):
    (tmp_path / "q").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_qrels(tmp_path / "q")


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*nowhere"):
        read_qrels(tmp_path / "nowhere")
    with pytest.raises(InputError, match="cannot read"):
        Run.from_trec(tmp_path)


def test_the_manifest_beside_a_run_is_read_with_it(tmp_path):
    made = Run.of(["a query"]).ranking({"1": [("d", 1.0)]})
    record = Record("dense", "0" * 12, 0.5, {"queries": 1}, {"hf:m": "abc"})
    replace(made, manifest=Manifest((record,))).to_trec(tmp_path / "r.trec")
    assert Run.from_trec(tmp_path / "r.trec").manifest.records == (record,)
    (tmp_path / "r.trec.manifest.json").write_text('{"stages": [{"stage": 1}]}')
    with pytest.raises(InputError, match=r"r\.trec\.manifest\.json is not a manifest"):
        Run.from_trec(tmp_path / "r.trec")
    (tmp_path / "r.trec.manifest.json").unlink()
    assert Run.from_trec(tmp_path / "r.trec").manifest == Manifest()


def test_a_stream_gets_the_run_and_no_manifest(tmp_path):
    wait = read_pipe(tmp_path / "pipe")
    run = run_of({"q": {"a": 2.0, "b": 1.0}})
    run.to_trec(tmp_path / "pipe")
    written = wait()
    assert written == b"q Q0 a 1 2 crosslens\nq Q0 b 2 1 crosslens\n"
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]
    # A link is written through; the manifest stands beside the name that was given, where it is read.
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far/run")
    run.to_trec(tmp_path / "link")
    assert (tmp_path / "far" / "run").read_bytes() == written
    assert sorted(each.name for each in tmp_path.iterdir()) == ["far", "link", "link.manifest.json", "pipe"]


def test_a_pipe_in_place_of_the_manifest_is_refused(tmp_path):
    (tmp_path / "run").write_text("q Q0 a 1 2 x\n")
    os.mkfifo(tmp_path / "run.manifest.json")
    with pytest.raises(InputError, match=r"run\.manifest\.json"):
        Run.from_trec(tmp_path / "run")


def test_grades_may_be_negative_and_a_million(tmp_path):
    (tmp_path / "q").write_text("1 0 d 1000000\n1 0 e -2\n1 0 f -500000000\n")
    assert read_qrels(tmp_path / "q")[0] == {"1": {"d": 1_000_000, "e": -2, "f": -500_000_000}}


@table("pack", [bytes, gzip.compress])
def test_standard_input_is_read_as_a_file_is(tmp_path, monkeypatch, pack):
    monkeypatch.chdir(tmp_path)
    Path("-.manifest.json").write_text("{")  # is of no run
    for content, read in (
        (b"\xef\xbb\xbf1 Q0 d 1 2.5 x\n", lambda: Run.from_trec("-").hits == {"1": (("d", 2.5),)}),
        (JUDGED, lambda: read_qrels("-")[0]["q1"] == {"d1": 1, "d2": 0}),
    ):
        source = io.BytesIO(pack(content))
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(source))
        assert read()
        assert not source.closed


def test_a_packed_run_is_written_and_read(tmp_path):
    run = Run.of(["x"]).ranking({"1": [("a", 2.0), ("b", 1.0)]})
    run.to_trec(tmp_path / "r.trec.gz")
    content = (tmp_path / "r.trec.gz").read_bytes()
    assert gzip.decompress(content) == b"1 Q0 a 1 2 crosslens\n1 Q0 b 2 1 crosslens\n"
    assert Run.from_trec(tmp_path / "r.trec.gz").hits == run.hits
    (tmp_path / "packed").write_bytes(content)  # whatever its name
    assert Run.from_trec(tmp_path / "packed").hits == run.hits


@table(
    "line",
    [
        *(f"q Q0 d 1 {score} x" for score in ("1_000", "１２", "0x10", "1e400", "-1e400", "1e-400", "nan", "1,5", "", "³")),
        "q\u00a0Q0 d 1 2 x", "q Q0\u2028d 1 2 x", "q Q0 d\x85 1 2 x", "\ufeffq Q0 d 1 2 x", "q Q0 d\x1b[31m 1 2 x",
        "q Q0 d\0 1 2 x", "q Q0 a d 1 2 x", "q Q0 d 1 2", "q Q0 c 1 2 x",
    ],
)  # fmt: skip
def test_what_readers_of_runs_could_differ_about_is_refused(tmp_path, line):
    path = tmp_path / "run"
    path.write_bytes(f"\ufeffq Q0 c 1 3 x\r\n{line}\r\n".encode())
    with pytest.raises(InputError, match="run:2: "):
        Run.from_trec(path)


@table(
    "line",
    [
        *(f"t 0 d {grade}" for grade in ("1_0", "１", "0x1", "1.5", "1e1", "", "²", "1" * 5000)),
        "t\u00a00 d 1", "t 0 d\u200a1", "\ufefft 0 d 1", "t 0 d\x07 1", "t 0 d\0 1", "t 0 c 2",
    ],
)  # fmt: skip
def test_what_readers_of_qrels_could_differ_about_is_refused(tmp_path, line):
    path = tmp_path / "qrels"
    path.write_text(f"t 0 c 1\n{line}\n", "utf-8")
    with pytest.raises(InputError, match="qrels:2: "):
        read_qrels(path)


@table("score", ["+5", "5.", ".5", "-0", "1E3", "007", "inf", "-Infinity", "0e-999", "1e-300"])
def test_numbers_that_mean_one_thing_are_read_as_it(tmp_path, score):
    (tmp_path / "run").write_text(f"q\tQ0  c 1 {score} x\n")
    assert Run.from_trec(tmp_path / "run")["q"][0].score == float(score)


@table(
    "wrong",
    [
        {"stage": 1}, {"stage": None}, {"seconds": "1"}, {"seconds": True}, {"seconds": 1e300}, {"counts": [1]}, {"models": {"m": 3}},
        {"counts": {"queries": "1"}}, {"counts": {"queries": math.nan}}, {"counts": {"queries": math.inf}}, {"more": 1},
    ],
)  # fmt: skip
def test_a_manifest_of_wrong_types_is_none(tmp_path, wrong):
    run_of({"q": {"d": 1.0}}).to_trec(tmp_path / "r")
    record = {"stage": "dense", "fingerprint": "0" * 12, "seconds": 0.5, "counts": {"queries": 1}, "models": {}}
    beside = tmp_path / "r.manifest.json"
    beside.write_text(json.dumps({"stages": [record]}))
    assert len(Run.from_trec(tmp_path / "r").manifest.records) == 1
    beside.write_text(json.dumps({"stages": [record | wrong]}))
    with pytest.raises(InputError, match="is not a manifest"):
        Run.from_trec(tmp_path / "r")


@table(
    ("given", "items"),
    [
        ("red cat", [Item("1", "red cat")]),
        (Item("q", "cat"), [Item("q", "cat")]),
        ({"text": "cat", "lang": "en", "kind": "k"}, [Item("1", "cat", lang="eng", meta={"kind": "k"})]),
        (["a", Item("q"), ("r", "b"), {"_id": 7, "image": "c.jpg"}],
         [Item("1", "a"), Item("q"), Item("r", "b"), Item("7", image=Path("c.jpg"))]),
        (("a", "b"), [Item("1", "a"), Item("2", "b")]),
        (iter(["a"]), [Item("1", "a")]),
        (pandas.DataFrame({"qid": [3, 4], "query": ["a", "b"], "lang": ["fr", None]}),
         [Item("3", "a", lang="fra"), Item("4", "b")]),
        ([], []),
    ],
)  # fmt: skip
def test_queries_as_people_write_them(given, items):
    assert Run.of(given).queries == tuple(items)


@table("given", [b"cat", {"q1": "cat"}, 7, None, [7], ["a", b"cat"], [["a", "b"]], [None], {}])
def test_what_is_no_query_is_refused_with_what_is_taken(given):
    with pytest.raises(InputError, match=r"a query is text, an Item or a dictionary|a dictionary is one query"):
        Run.of(given)


@given(st.dictionaries(ids, hit_lists, min_size=1, max_size=4))
@settings(max_examples=15)
def test_frames_and_dictionaries_keep_the_order_and_scores_fall_as_float32(hits):
    run = run_of(hits)
    for scores in run.to_dict().values():
        with np.errstate(over="ignore"):
            singles = np.array(list(scores.values())).astype(np.float32)
        assert (singles[1:] < singles[:-1]).all()
    frame = run.to_df()
    assert list(frame.columns) == ["qid", "docno", "score", "rank", "query"]
    for again in (Run.from_dict(run.to_dict()), Run.from_df(frame.sample(frac=1, random_state=0), run.queries)):
        assert again.queries == run.queries
        for query in hits:
            assert [hit.id for hit in again[query]] == [hit.id for hit in run[query]]
    assert [[r.docno for r in frame[frame["qid"] == q].sort_values("rank").itertuples()] for q in hits] == [
        [hit.id for hit in run[q]] for q in hits
    ]


def test_a_frame_without_ties_comes_back_to_the_last_digit():
    run = Run.of(["cats", "dogs"]).ranking({"1": [("a", 0.1 + 0.2), ("b", -1e-9)], "2": [("c", 7.0)]})
    assert Run.from_df(run.to_df()) == run
    assert Run.from_dict(run.to_dict(), ["cats", "dogs"]) == run
    more = run.to_df().drop(columns=["rank", "query"]).assign(score=lambda f: f["score"].map(repr), text="x")
    assert Run.from_df(more.assign(qid=[1, 1, 2]), run.queries) == run
    empty = Run.of([])
    assert Run.from_df(empty.to_df()) == empty == Run.from_dict(empty.to_dict())
    assert "d" not in Run.from_df(run.to_df(), [Item("2")]).hits
    with pytest.raises(InputError, match="the data frame and the topics have no query in common"):
        Run.from_df(run.to_df(), [Item("9")])


@table(
    ("columns", "message"),
    [
        ({"query_id": ["1"], "docno": ["a"], "score": [1]}, r"no column qid \(it has query_id, docno, score\)"),
        ({"qid": ["1"], "docno": ["a"], "score": [math.nan]}, "query '1', document 'a': the score 'nan' is not a"),
        ({"qid": ["1"], "docno": ["a"], "score": ["high"]}, "the score 'high' is not a number"),
        ({"qid": ["1"], "docno": ["a"], "score": [None]}, "is not a number"),
        ({"qid": ["1"], "docno": [0.5], "score": [1]}, "an id is text, not '0.5' \\(float\\)"),
        ({"qid": ["1", "1"], "docno": ["a", "a"], "score": [1, 2]}, "document 'a' occurs twice for query '1'"),
    ],
)
def test_a_frame_that_is_no_run_is_refused(columns, message):
    with pytest.raises(InputError, match=message):
        Run.from_df(pandas.DataFrame(columns))


@table("wrong", [[1], {"q": ["a"]}, {"q": {"a": "x"}}, {"q": {"a": math.nan}}, {0.5: {}}])
def test_what_is_no_run_of_scores_is_refused(wrong):
    with pytest.raises(InputError):
        Run.from_dict(wrong)
    with pytest.raises(InputError, match="a data frame of pandas is wanted"):
        Run.from_df(wrong)


def test_without_pandas_its_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        Run.of(["cats"]).to_df()


def test_closed_standard_input_is_one_line(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputError, match="standard input .* is closed"):
        Run.from_trec("-")


def test_empty_cells_and_vectors_of_a_data_frame_are_no_fault():
    frame = pandas.DataFrame({"qid": ["a", "b"], "query": ["one", "two"], "year": [2020, None]}).convert_dtypes()
    first, second = Run.of(frame.assign(query_vec=[np.zeros(2), np.ones(2)])).queries
    assert first.meta["year"] == 2020
    assert second.meta.keys() == {"query_vec"}
    with pytest.raises(InputError, match="a dictionary is one query, with its `text` or `image`"):
        Run.of({"id": "a", "text": pandas.NA})
