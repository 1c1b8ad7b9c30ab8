"""`evaluate` and `evaluate_files`: groups, names, languages, the command, and what is refused."""

from __future__ import annotations

import gzip
import io
import json

import pytest
from crosslens.commands.app import app
from crosslens.errors import InputError
from crosslens.evaluation.evaluate import evaluate, evaluate_files
from crosslens.evaluation.measures import MEASURES
from crosslens.items import Item
from crosslens.runs import Run
from stand_ins.table import table
from typer.testing import CliRunner


def test_means_per_language_and_per_kind(grades, good, poor, queries, run_of):
    table = evaluate({"good": good, "poor": poor}, grades, ["RR", "P@1"], per="lang")
    assert table.groups == ("all", "eng", "zho", "unknown")
    assert table.counts == {"all": 4, "eng": 2, "zho": 1, "unknown": 1}
    assert table.mean("good", "RR", "eng") == 0.75
    assert table.mean("poor", "RR", "zho") == pytest.approx(1 / 3)
    assert table.mean("good", "RR") == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    kinds = evaluate({"good": good}, grades, ["RR"], per="kind")
    assert kinds.groups == ("all", "text to photo", "text to text", "unknown")
    assert kinds.mean("good", "RR", "text to photo") == 0.75
    bare = run_of({"1": "ab", "2": "ba"})  # bare ids, the topics given apart
    given_apart = evaluate({"bare": bare}, grades, ["RR"], per="lang", queries=queries.values())
    assert given_apart.mean("bare", "RR", "zho") == 0.5
    with pytest.raises(InputError, match="no query has a language"):
        evaluate({"bare": bare}, grades, ["RR"], per="lang")
    with pytest.raises(InputError, match=r"unknown group of queries 'knd'; did you mean kind\?"):
        evaluate({"good": good}, grades, ["RR"], per="knd")
    for bad in (("x", "RR", "all"), ("good", "x", "all"), ("good", "RR", "x")):
        with pytest.raises(InputError, match="unknown"):
            table.mean(*bad)


def test_means_per_document_language(run_of):
    # c and p are Chinese and Persian, u has no known language and stays in both rankings
    qrels = {"1": {"c": 1, "p": 1}, "2": {"p": 1, "c": 0}}
    run = run_of({"1": "upc", "2": "cup"})
    table = evaluate({"r": run}, qrels, ["RR"], per="doc_lang", doc_langs={"c": "zho", "p": "fas"})
    assert table.counts == {"all": 2, "fas": 2, "zho": 1}  # query 2 has nothing relevant in Chinese
    assert table.mean("r", "RR", "zho") == 0.5
    assert table.mean("r", "RR", "fas") == 0.5

    class Docs:
        def get(self, ids):
            return [Item(id, lang={"c": "zho", "p": "fas"}.get(id)) for id in ids]

    from_docs = evaluate({"r": Run(run.queries, run.hits, docs=Docs())}, qrels, ["RR"], per="doc_lang")
    assert from_docs.means == table.means
    with pytest.raises(InputError, match="no relevant document has a language"):
        evaluate({"r": run}, qrels, ["RR"], per="doc_lang")


def test_a_run_deeper_than_the_tracks_take_is_named(grades, good):
    hits = {"1": [(f"d{i}", -float(i)) for i in range(1001)], "2": [(f"d{i}", -float(i)) for i in range(1000)]}
    table = evaluate({"deep": Run.of([Item("1"), Item("2")]).ranking(hits)}, {"1": {"d1000": 1}, "2": {"d0": 1}},
                     ["R@1000", "AP"])  # fmt: skip
    assert table.deep == {"deep": ("1",)}
    assert "deep has more than 1,000 hits for 1 queries" in str(table)
    assert table.to_json()["systems"][0]["deep"] == ["1"]
    assert table.mean("deep", "R@1000") == 0.5
    assert table.mean("deep", "AP") == pytest.approx((1 + 1 / 1001) / 2)
    assert evaluate({"good": good}, grades, ["RR"]).deep == {"good": ()}


def test_two_systems_of_one_name(tmp_path, grades, good, poor):
    with pytest.raises(InputError, match="two systems have the name 'good'"):
        evaluate([("good", good), ("good", poor)], grades, ["RR"])
    assert evaluate([("good", good), ("poor", poor)], grades, ["RR"]).systems == ("good", "poor")
    good.to_trec(tmp_path / "good.trec")
    qrels = tmp_path / "qrels.txt"
    qrels.write_text("1 0 a 1\n")
    (tmp_path / "same").mkdir()
    with pytest.raises(InputError, match="given twice"):
        evaluate_files(qrels, [tmp_path / "good.trec", tmp_path / "same" / ".." / "good.trec"])


def test_systems_keep_their_names_and_the_baseline_goes_by_them(tmp_path, good, poor):
    paths = [tmp_path / name for name in ("a.dense.trec", "a.lexical", "b.v1.run.gz", "c.txt", ".trec")]
    for path in paths:
        (good if path.name.startswith("a.d") else poor).to_trec(path)
    (tmp_path / "qrels.txt").write_text("".join(f"{q} 0 a 1\n" for q in "1234"))
    names = ["a.dense", "a.lexical", "b.v1", "c", ".trec"]
    for baseline in ("a.lexical", "1", str(paths[1])):
        arguments = ["evaluate", tmp_path / "qrels.txt", *paths, "-m", "RR", "--baseline", baseline]
        done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
        assert done.exit_code == 0, done.output
        result = json.loads(done.stdout)
        assert [system["name"] for system in result["systems"]] == names
        assert result["baseline"] == "a.lexical"
    done = CliRunner().invoke(app, [*map(str, arguments[:-1]), "a.lexica"])
    assert "did you mean a.lexical?" in str(done.exception or done.output)
    with pytest.raises(InputError, match="there are 5 systems, numbered from 0"):
        evaluate_files(tmp_path / "qrels.txt", paths, baseline="7")


def test_the_command_line_asks_for_all_of_it(tmp_path, good, poor):
    poor.to_trec(tmp_path / "poor.trec")
    good.to_trec(tmp_path / "good.trec")
    qrels = tmp_path / "qrels.txt"
    qrels.write_text("".join(f"{q} 0 a 1\n{q} 0 b 1\n" for q in "1234"))
    (tmp_path / "langs").write_text("a zho\nb fas\n")
    arguments = [
        "evaluate", qrels, tmp_path / "good.trec", tmp_path / "poor.trec", "--langs", tmp_path / "langs",
        "--baseline", 0, "--test", "randomisation", "--correction", "bonferroni", "--interval", 0.9, "--seed", 3,
        "-m", "RR", "-m", "PEER@20", "-m", "alpha_nDCG@20", "--per-topic",
    ]  # fmt: skip
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["test"], result["correction"], result["level"]) == ("randomisation", "bonferroni", 0.9)
    assert result["measures"] == ["RR", "PEER@20", "alpha_nDCG@20"]
    assert result["per"] == "doc_lang"
    assert result["systems"][0]["values"]["alpha_nDCG@20"] == dict.fromkeys("1234", 1)
    expected = evaluate_files(qrels, [tmp_path / "good.trec", tmp_path / "poor.trec"], langs=tmp_path / "langs",
                              measures=result["measures"], baseline=0, test="randomisation",
                              correction="bonferroni", interval=0.9, seed=3)  # fmt: skip
    assert result == json.loads(json.dumps(expected.to_json(per_query=True)))
    shown = CliRunner().invoke(app, [*map(str, arguments), "--no-per-language"])
    assert "RR per topic" in shown.stdout
    assert "per doc_lang" not in shown.stdout


@table(
    ("arguments", "message"),
    [
        ({"runs": {}}, "no runs"),
        ({"qrels": {}}, "no judgements"),
        ({"measures": []}, "no measures"),
        ({"baseline": "goood"}, "unknown baseline 'goood'; did you mean good?"),
        ({"baseline": 2}, "there are 1 systems, numbered from 0"),
        ({"baseline": -1}, "there are 1 systems"),
        ({"test": "u"}, "unknown test 'u'"),
        ({"correction": "hom"}, "unknown correction 'hom'; did you mean holm?"),
        ({"seed": -5}, "seed must be at least 0, not -5"),
        ({"seed": 1.5}, "seed must be a whole number, not 1.5"),
        ({"interval": 95.0}, "an interval of confidence 95.0: between 0 and 1"),
        ({"qrels": {"x9": {"a": 1}}}, "no query in common: the run has 1, 2, 3, ... (4 in all), the qrels have x9"),
    ],
)
def test_what_makes_no_sense_is_one_line(arguments, message, grades, good):
    with pytest.raises(InputError) as error:
        evaluate(**{"runs": {"good": good}, "qrels": grades, "measures": ["RR"]} | arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_files_and_the_language_in_column_2(tmp_path, good, poor):
    good.to_trec(tmp_path / "good.trec")
    (tmp_path / "other").mkdir()
    poor.to_trec(tmp_path / "other" / "good.trec")
    qrels = tmp_path / "qrels.txt"
    qrels.write_text("".join(f"{q} zho a 1\n{q} fas b 0\n" for q in "1234"))
    table = evaluate_files(qrels, [tmp_path / "good.trec", tmp_path / "other" / "good.trec"], measures=["RR"],
                           per_language=True, baseline=0)  # fmt: skip
    assert table.systems == (str(tmp_path / "good.trec"), str(tmp_path / "other" / "good.trec"))
    assert table.groups == ("all", "zho")
    assert table.mean(table.systems[0], "RR", "zho") == 1  # the Persian document above it is not of this ranking
    one = evaluate_files(qrels, [tmp_path / "good.trec"])
    assert one.systems == ("good",)
    assert one.measures == MEASURES
    with pytest.raises(InputError, match="given twice"):
        evaluate_files(qrels, [tmp_path / "good.trec"] * 2)
    qrels.write_text("1 0 a 1\n")
    with pytest.raises(InputError, match="does not give the documents' languages"):
        evaluate_files(qrels, [tmp_path / "good.trec"], per_language=True)


@pytest.mark.parametrize(
    ("grade", "message"),
    [
        (1_000_001, "topic '1', document 'a': the grade 1000001 is above 1,000,000"),
        (500_000_000, "is above"),
        (1.5, "the grade 1.5 is not a whole number"),
        ("1", "the grade '1' is not a whole number"),
    ],
)
def test_grades_in_python_are_checked(run_of, grade, message):
    with pytest.raises(InputError, match=message):
        evaluate({"r": run_of({"1": "a"})}, {"1": {"a": grade}}, ["nDCG@10"])


def test_packed_files_beir_and_standard_input(crosslens, tmp_path, monkeypatch):
    plain = {"qrels.txt": b"q1 0 a 1\nq2 0 b 1\n", "run.trec": b"q1 Q0 a 1 2 x\nq2 Q0 c 1 2 x\nq2 Q0 b 2 1 x\n"}
    beir = b"query-id\tcorpus-id\tscore\r\nq1\ta\t1\r\nq2\tb\t1\r\n"
    for name, content in (plain | {"test.tsv": beir, "bare.tsv": beir.split(b"\n", 1)[1]}).items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    kinds = {*(tmp_path / name for name in ("qrels.txt", "test.tsv", "bare.tsv")), "-"}
    qrels = {f"{each}.gz" for each in kinds - {"-"}} | set(map(str, kinds))
    for judged in sorted(qrels):
        for ranked in ("-", tmp_path / "run.trec", tmp_path / "run.trec.gz"):
            given = plain["qrels.txt" if judged == "-" else "run.trec"]
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
            status, out, err = crosslens("evaluate", judged, ranked, "-m", "RR", "--json")
            if judged == ranked == "-":
                assert status == 2
                assert "standard input (-) can be read once" in err
                assert err.count("\n") == 1
                continue
            assert status == 0, err
            (system,) = json.loads(out)["systems"]
            assert system["means"]["RR"]["all"] == 0.75
            assert system["name"] == ("-" if ranked == "-" else "run")
    status, _, err = crosslens("evaluate", tmp_path / "qrels.txt", "-", "-")
    assert status == 2
    assert "given twice" in err or "can be read once" in err


@table("wrong", [{"q1": {3: 1}}, {1: {"d1": 1}}, {"q1": ["d1"]}, [("q1", "d1", 1)]])
@table("measure", ["nDCG", "ERR", "Accuracy"])
def test_qrels_of_other_types_are_refused_and_not_read_as_none(wrong, measure):
    run = Run.of([]).ranking({"q1": [("d1", 2.0)]})
    with pytest.raises(InputError, match="qrels"):
        evaluate({"a": run}, wrong, [measure])
