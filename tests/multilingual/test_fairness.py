"""multilingual/fairness.py: alpha-nDCG over languages, PEER and shares, against pencil, scipy and pyndeval."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from pathlib import Path

import pytest
import scipy.stats
from crosslens.errors import InputError
from crosslens.evaluation.evaluate import evaluate, evaluate_files
from crosslens.evaluation.measures import MEASURES, MLIR, parse_measure
from crosslens.items import Item
from crosslens.multilingual.fairness import PEER, Peer, compare_ranks, compute_alpha_ndcg, compute_shares, read_langs
from crosslens.runs import Run, read_qrels
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins.table import table

GOLDEN = Path(__file__).parents[1] / "golden"
QRELS, RUN = GOLDEN / "qrels.txt", GOLDEN / "run.trec"
LANGS = {"z": "zho", "f": "fas", "r": "rus"}


def ranked(docs: str) -> list[tuple[str, float]]:
    """`z1 f1`: documents by rank; the first letter is the language."""
    return [(doc, float(-rank)) for rank, doc in enumerate(docs.split())]


def langs_of(*docs: str) -> dict[str, str]:
    return {doc: LANGS[doc[0]] for part in docs for doc in part.split()}


def run_of(hits: dict[str, str]) -> Run:
    return Run.of([Item(query) for query in hits]).ranking({q: ranked(docs) for q, docs in hits.items()})


def test_alpha_ndcg_by_hand():
    grades = {"z1": 3, "z2": 1, "f1": 1, "r9": 0}
    langs = langs_of(*grades)
    ideal = 1 / math.log2(2) + 1 / math.log2(3) + 0.5 / math.log2(4)  # one of each language, then the second
    gained = 1 / math.log2(2) + 0.5 / math.log2(3) + 1 / math.log2(5)
    ranking = ranked("z1 z2 r9 f1")
    assert compute_alpha_ndcg(ranking, grades, langs) == pytest.approx(gained / ideal)
    first_two = (1 + 0.5 / math.log2(3)) / (1 + 1 / math.log2(3))
    assert compute_alpha_ndcg(ranking, grades, langs, cutoff=2) == pytest.approx(first_two)
    assert compute_alpha_ndcg(ranked("f1 z2 z1"), grades, langs) == pytest.approx(1)  # binary: the grades do not count
    assert compute_alpha_ndcg(ranked("x f1 z2 z1"), grades, langs) < 1
    assert compute_alpha_ndcg(ranked("x f1 z2 z1"), grades, langs, judged_only=True) == pytest.approx(1)
    # Without intolerance of repetition it is nDCG with binary gains, with full intolerance the first counts.
    assert compute_alpha_ndcg(ranking, grades, langs, alpha=0.0) == pytest.approx(
        (1 + 1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 1 / math.log2(4))
    )
    assert compute_alpha_ndcg(ranking, grades, langs, alpha=1.0) == pytest.approx(
        (1 + 1 / math.log2(5)) / (1 + 1 / math.log2(3))
    )
    assert compute_alpha_ndcg(ranking, grades, {"z1": "zho"}, rel=3) == 1
    assert compute_alpha_ndcg(ranking, {"z1": 0}, {}) == 0


def test_alpha_ndcg_equals_pyndeval():
    """pyndeval 0.0.8 on the golden files, column 2 as the subtopic; it is not needed to test."""
    told = json.loads((GOLDEN / "alpha-ndcg.json").read_text())
    table = evaluate_files(QRELS, [RUN], measures=list(told))
    for measure, values in told.items():
        assert set(values) == {"200", "201", "202", "203", "204", "205"}
        for topic, value in values.items():
            assert table.values["run"][measure][topic] == pytest.approx(value, abs=1e-12), (measure, topic)
        assert table.values["run"][measure]["206"] == 0


@given(st.lists(st.sampled_from("zfr"), min_size=1, max_size=5), st.sampled_from([0.0, 0.3, 0.5, 1.0]),
       st.integers(1, 6))  # fmt: skip
@settings(max_examples=60)
def test_no_ranking_beats_the_ideal_and_one_reaches_it(letters, alpha, cutoff):
    docs = [f"{letter}{i}" for i, letter in enumerate(letters)]
    grades, langs = dict.fromkeys(docs, 1), langs_of(*docs)
    found = [
        compute_alpha_ndcg(ranked(" ".join(order)), grades, langs, alpha=alpha, cutoff=cutoff)
        for order in itertools.permutations(docs)
    ]
    assert max(found) == pytest.approx(1)


def test_peer_by_hand():
    # Ranks 1 and 3 against 2 and 4: H = (4 - 1) * (2 * 0.5^2 + 2 * 0.5^2) / 5 = 0.6, one degree of freedom.
    docs = "z1 f1 z2 f2"
    grades, langs = dict.fromkeys(docs.split(), 1), langs_of(docs)
    assert PEER.value(ranked(docs), grades, langs, {1: 1}) == pytest.approx(scipy.stats.chi2.sf(0.6, 1))
    # What is in between does not count, nor how far apart they are.
    assert PEER.value(ranked("x z1 y f1 z2 q w f2"), grades, langs, {1: 1}) == pytest.approx(0.4385780, abs=1e-7)
    # z1 first and the other three not retrieved: ranks 1 | 3, 3, 3.
    tied = scipy.stats.kruskal([1, 9], [9, 9]).pvalue
    assert PEER.value(ranked("z1 x"), grades, langs, {1: 1}) == pytest.approx(tied)
    assert (PEER @ 1).value(ranked(docs), grades, langs, {1: 1}) == pytest.approx(tied)
    # Nothing retrieved, or nothing to compare, is no unfairness.
    assert PEER.value(ranked("x y"), grades, langs, {1: 1}) == 1
    assert PEER.value(ranked("z1 z2 x"), {"z1": 1, "z2": 1}, langs, {1: 1}) == 1
    assert PEER.value(ranked("z1 z2 x"), {"z1": 0, "f1": 0}, langs, {1: 1}) == 0  # nothing relevant


def test_peer_weighs_grades_and_leaves_out_those_that_a_topic_lacks():
    grades = {"z1": 3, "z2": 3, "f1": 3, "f2": 3, "z3": 1, "f3": 1, "x": 0}
    langs = langs_of(*(doc for doc in grades if doc != "x"))
    ranking = ranked("z1 z2 f1 f2 f3 z3")
    high, low = compare_ranks([[1, 2], [3, 4]]), compare_ranks([[2], [1]])
    for weights, expected in (
        ({1: 0.5, 3: 0.5}, (high + low) / 2),
        ({1: 0.2, 3: 0.8}, 0.8 * high + 0.2 * low),
        ({3: 1.0}, high),
        ({1: 0.3, 2: 0.4, 3: 0.3}, (high + low) / 2),
    ):
        table = evaluate({"r": run_of({"1": "z1 z2 f1 f2 f3 z3"})}, {"1": grades}, [PEER(weights=weights) @ 20],
                         doc_langs=langs)  # fmt: skip
        assert list(table.means.values()) == [pytest.approx(expected)]
        assert PEER.value(ranking, grades, langs, weights) == pytest.approx(expected)
    equally = evaluate({"r": run_of({"1": "z1 z2 f1 f2 f3 z3"})}, {"1": grades}, ["PEER@20"], doc_langs=langs)
    assert equally.mean("r", "PEER@20") == pytest.approx((high + low) / 2)


@pytest.mark.parametrize(
    ("order", "value"),
    [
        ("aabb", 0.12133525035848208),
        ("abab", 0.4385780260809997),
        ("aaaabbbb", 0.020921335337794035),
        ("abcabcabc", 0.6703200460356394),
        ("aaabbbccc", 0.027323722447292555),
    ],
)
def test_peer_is_its_authors_where_all_documents_are_retrieved(order, value):
    """peer_measure 0.0.1, one grade, nothing else in the ranking: there its ranks are those of the test."""
    docs = [f"{letter}{i}" for i, letter in enumerate(order)]
    found = PEER.value(ranked(" ".join(docs)), dict.fromkeys(docs, 1), {doc: doc[0] for doc in docs}, {1: 1})
    assert found == pytest.approx(value, rel=1e-12)


@given(st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=2, max_size=4))
@settings(max_examples=100)
def test_the_test_is_scipys(samples):
    filled = [sample for sample in samples if sample]
    found = compare_ranks(samples)
    if len(filled) < 2 or len({value for sample in filled for value in sample}) < 2:
        assert found == 1
    else:
        assert found == pytest.approx(scipy.stats.kruskal(*filled).pvalue, rel=1e-9)


def test_golden_peer_equals_scipy():
    grades, langs = read_qrels(QRELS)
    run = Run.from_trec(RUN)
    table = evaluate({"run": run}, grades, ["PEER@20"], doc_langs=langs)
    fairs = []
    for topic, of in grades.items():
        if not run[topic]:
            fairs.append(0.0)
            continue
        places = {hit.id: place for place, hit in enumerate(run[topic][:20])}
        ps = []
        for grade in sorted({grade for grade in of.values() if grade > 0}):
            samples: dict[str, list[int]] = {}
            for doc, judged in of.items():
                if judged == grade:
                    samples.setdefault(langs[doc], []).append(places.get(doc, 10**6))
            several = len(samples) > 1 and len({p for sample in samples.values() for p in sample}) > 1
            ps.append(scipy.stats.kruskal(*samples.values()).pvalue if several else 1.0)
        fairs.append(sum(ps) / len(ps))
        assert table.values["run"]["PEER@20"][topic] == pytest.approx(fairs[-1])
    assert table.mean("run", "PEER@20") == pytest.approx(sum(fairs) / len(fairs))
    assert len({round(fair, 6) for fair in fairs}) > 4


@table(
    "name", ["PEER@20", "PEER", "PEER(weights={1:0.5,3:0.5})@20", "PEER(weights={3:1.0})", "alpha_nDCG@20",
             "alpha_nDCG(alpha=0.8)@10", "alpha_nDCG(rel=3)@20", "alpha_nDCG"],
)  # fmt: skip
def test_a_measure_is_its_name(name):
    measure = parse_measure(name)
    assert repr(measure) == str(measure) == name
    assert parse_measure(measure) == measure
    assert len({measure, parse_measure(name)}) == 1


def test_peer_is_an_immutable_value():
    measure = PEER(weights={3: 0.5, 1: 0.5}) @ 20
    assert measure == parse_measure("PEER(weights={1:0.5,3:0.5})@20") == Peer(20, ((1, 0.5), (3, 0.5)))
    assert PEER @ 20 != PEER @ 10
    assert Peer() == PEER
    with pytest.raises(AttributeError):
        measure.cutoff = 10


@table(
    ("name", "told"),
    [
        ("PEER@0", "cutoff 0"),
        ("PEER@1.5", "cutoff 1.5"),
        ("PEER(", "write PEER@20"),
        ("PEER@x", "write PEER@20"),
        ("PEER(20)", "write PEER@20"),
        ("PEER(rel=1)@20", "write PEER@20"),
        ("PEER(weights=1)@20", "write PEER(weights={1:0.5,3:0.5})@20"),
        ("PEER(weights={1:0.5})@20", "sum to 0.5; they must sum to 1"),
        ("PEER(weights={0:0.5,1:0.5})@20", "a weight for the grade 0"),
        ("PEER(weights={1:1.5,3:-0.5})@20", "weight -0.5"),
        ("PEER(weights={1:'a'})@20", "weight a"),
        ("PEER(weights={})@20", "sum to 0"),
        ("peer@20", "did you mean PEER@20?"),
        ("alpha_nDCG(alpha=1.5)@20", "alpha 1.5"),
        ("alpha_nDCG@0", "cutoff 0"),
        ("ERR_IA@20", "of those over aspects alpha_nDCG is"),
        ("StRecall@20", "of those over aspects alpha_nDCG is"),
    ],
)
def test_a_senseless_measure_is_one_line(name, told):
    with pytest.raises(InputError) as error:
        parse_measure(name)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


GRADES = {"1": {"z1": 1, "f1": 1, "x": 0}, "2": {"f1": 3}}
HITS = {"1": "z1 x f1", "2": "q f1"}


@pytest.mark.parametrize("measure", ["PEER@20", "alpha_nDCG@20"])
def test_without_languages_there_is_no_number(measure):
    for langs, told in (
        (None, f"{measure} needs the documents' languages, and none is known"),
        ({}, "none is known"),
        ({"x": "zho"}, "none is known"),
        ({"z1": "zho"}, "1 of 2 relevant documents have none (f1)"),
    ):
        with pytest.raises(InputError) as error:
            evaluate({"r": run_of(HITS)}, GRADES, ["RR", measure], doc_langs=langs)
        assert told in str(error.value)
        assert "--langs" in str(error.value)
        assert "\n" not in str(error.value)
    evaluate({"r": run_of(HITS)}, GRADES, [measure], doc_langs={"z1": "zho", "f1": "fas"})


def test_peer_of_one_language_or_of_no_such_grade_is_refused():
    with pytest.raises(InputError, match="compares languages, and all relevant documents are zho"):
        evaluate({"r": run_of(HITS)}, GRADES, ["PEER@20"], doc_langs={"z1": "zho", "f1": "zho"})
    with pytest.raises(InputError, match="weighs the grades 2, and the qrels have 1, 3"):
        evaluate({"r": run_of(HITS)}, GRADES, ["PEER(weights={2:1})@20"], doc_langs=langs_of("z1 f1"))


def test_languages_come_from_the_documents_behind_a_run():
    class Docs:
        def __init__(self, *lacking: str) -> None:
            self.lacking = set(lacking)

        def get(self, ids):
            if missing := sorted(self.lacking & set(ids)):
                raise InputError(f"no documents with the ids {', '.join(missing)}")
            return [Item(id, lang=LANGS.get(id[0])) for id in ids]

    grades = {"1": {"z1": 1, "f1": 1, "z2": 1, "f2": 1}}  # z2 and f2 are not retrieved, and count
    run = run_of({"1": "z1 x f1"})
    names = ["PEER@20", "alpha_nDCG@20"]
    told = evaluate({"r": run}, grades, names, doc_langs=langs_of("z1 z2 f1 f2"))
    looked_up = evaluate({"r": Run(run.queries, run.hits, docs=Docs("x"))}, grades, names)
    assert looked_up.means == told.means
    per = evaluate({"r": Run(run.queries, run.hits, docs=Docs())}, grades, ["R@100"], per="doc_lang")
    assert per.mean("r", "R@100", "zho") == 0.5  # and not 1: z2 is relevant, though no hit
    with pytest.raises(InputError, match=r"behind r do not give all languages .*z2.* give `doc_langs`"):
        evaluate({"r": Run(run.queries, run.hits, docs=Docs("z2"))}, grades, names)


def test_shares_by_hand():
    langs = langs_of("z1 z2 f1 f2 r1")
    grades = {"1": {"z1": 1, "z2": 3, "f1": 1, "f2": 0}, "2": {"f1": 1}, "3": {"z1": 0}}
    found = compute_shares({"a": run_of({"1": "z1 z2 r1 x f1", "2": "f1", "3": "z1"}).hits, "b": run_of({"1": "f1"}).hits},
                   grades, langs, 4)  # fmt: skip
    assert found.topics == 2
    assert found.languages == ("fas", "zho", "rus", "unknown")
    assert found.relevant == pytest.approx({"zho": (2 / 3) / 2, "fas": (1 / 3 + 1) / 2})
    assert found.top["a"] == pytest.approx({"zho": 0.5 / 2, "rus": 0.25 / 2, "unknown": 0.25 / 2, "fas": 0.5})
    assert found.top["b"] == {"fas": 1}  # topic 2 has no hit and is left out
    for of in (found.relevant, *found.top.values()):
        assert sum(of.values()) == pytest.approx(1)
    with pytest.raises(InputError, match="no relevant document"):
        compute_shares({}, {"3": {"z1": 0}}, langs)


def test_several_languages_in_column_2_are_broken_down_by_default():
    table = evaluate_files(QRELS, [RUN])
    assert table.measures == (*MEASURES, *MLIR)
    assert table.groups == ("all", "fas", "rus", "zho")
    assert table.shares.cutoff == 20
    grades, langs = read_qrels(QRELS)
    of = [Counter(langs[doc] for doc, grade in topic.items() if grade > 0) for topic in grades.values()]
    expected = sum(topic["zho"] / topic.total() for topic in of) / len(of)
    assert table.shares.relevant["zho"] == pytest.approx(expected)
    text, markdown = str(table), table.markdown()
    for shown in (text, markdown):
        assert "languages among the first 20 hits" in " ".join(shown.split())
        assert "relevant documents" in shown
        assert "nDCG@20 per doc_lang" in shown
        assert "PEER@20 per doc_lang" not in shown  # one language alone has no value
        assert "nan" not in shown
        assert "unknown: documents whose language is not known" in shown
    told = json.loads(json.dumps(table.to_json(), allow_nan=False))
    assert told["systems"][0]["means"]["PEER@20"]["zho"] is None
    assert told["shares"]["top"]["run"].keys() == {"fas", "rus", "zho", "unknown"}
    plain = evaluate_files(QRELS, [RUN], per_language=False, measures=["RR"])
    assert (plain.groups, plain.shares, plain.measures) == (("all",), None, ("RR",))


def test_languages_of_a_file_or_a_collection_where_column_2_is_zeros(tmp_path):
    qrels, zeros = tmp_path / "qrels.txt", tmp_path / "zeros.txt"
    qrels.write_text("1 zho z1 1\n1 fas f1 1\n1 fas f2 3\n")
    zeros.write_text("1 0 z1 1\n1 0 f1 1\n1 0 f2 3\n")
    run_of({"1": "z1 r1 f1"}).to_trec(tmp_path / "a.trec")
    runs = [tmp_path / "a.trec"]
    names = ["PEER@20", "alpha_nDCG@20"]
    told = evaluate_files(qrels, runs, measures=names)
    with pytest.raises(InputError, match="none is known"):
        evaluate_files(zeros, runs, measures=names)
    assert evaluate_files(zeros, runs).measures == MEASURES
    langs = tmp_path / "langs.txt"
    langs.write_text("z1 zh\nf1 Persian\nf2 pes\nr1 rus\nother eng\n")
    from_file = evaluate_files(zeros, runs, measures=names, langs=langs)
    assert from_file.means == pytest.approx(told.means, nan_ok=True)
    assert from_file.shares.top["a"] == pytest.approx({"zho": 1 / 3, "rus": 1 / 3, "fas": 1 / 3})
    (tmp_path / "collection").mkdir()
    (tmp_path / "collection" / "docs.jsonl").write_text(
        '{"id": "z1", "text": "猫整天睡觉，晚上捕猎。"}\n{"id": "f1", "text": "a", "lang": "fas"}\n'
        '{"id": "f2", "text": "b", "lang": "fas"}\n{"id": "r1", "text": "c", "lang": "rus"}\n'
    )
    from_collection = evaluate_files(zeros, runs, measures=names, langs=str(tmp_path / "collection"))
    assert from_collection.to_json() == from_file.to_json()
    assert read_langs(langs, ["z1", "nowhere"]) == {"z1": "zho"}
    for text, line in (("z1\n", "langs.txt:1: not `document language` but 1 columns"), ("f9 eng\nz1 qqqx\n", "langs.txt:2:"),
                       ("z1 zho\nz1 rus\n", "langs.txt:2: document 'z1' has two")):  # fmt: skip
        langs.write_text(text)
        with pytest.raises(InputError, match=line):
            evaluate_files(zeros, runs, langs=langs)
    with pytest.raises(InputError, match="does not exist"):
        evaluate_files(zeros, runs, langs=tmp_path / "nowhere")


def test_a_word_in_column_2_that_is_no_language(tmp_path):
    (tmp_path / "q").write_text("1 Q z1 1\n1 Q f1 1\n")
    run_of({"1": "z1 f1"}).to_trec(tmp_path / "a.trec")
    table = evaluate_files(tmp_path / "q", [tmp_path / "a.trec"])
    assert (table.measures, table.groups) == (MEASURES, ("all",))
    with pytest.raises(InputError, match="column 2 should hold languages"):
        evaluate_files(tmp_path / "q", [tmp_path / "a.trec"], per_language=True)
    with pytest.raises(InputError, match="column 2 should hold languages"):
        evaluate_files(tmp_path / "q", [tmp_path / "a.trec"], measures=["PEER@20"])
