"""The LLM as assessor: grades, what is left out, the journal after a kill, pools, and the command."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from crosslens.errors import InputError
from crosslens.evaluation.assess import Assessor, parse_assessor
from crosslens.evaluation.assess_task import AssessmentTask, plan_assessment
from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.judges.messages import Passage
from crosslens.multilingual.prompts import Prompt, load_prompt
from crosslens.pipeline import advance, watch
from crosslens.runs import Manifest, read_qrels
from stand_ins.pipes import read_pipe
from stand_ins.table import table

GRADED = """
asks = "choose"
template = "Query: {query}\\nPassage: {passage}\\nGrade:"
labels = ["0", "1", "2", "3"]
values = [0, 1, 2, 3]
"""
PROMPT = Prompt.parse(GRADED, "graded-test")
LANGS = ("zho", "fas", "rus")


class Knowing:
    """Knows the grade of each (query, passage): None cannot be read; raises when it has answered `dies` questions."""

    name, revision = "knowing", "7"
    modalities, can, chats, appetite = frozenset({"text"}), frozenset({"choose"}), False, 4

    def __init__(self, truth, dies=None, fingerprint="knowing-7"):
        self.truth, self.dies, self.fingerprint = truth, dies, fingerprint
        self.usage, self.asked = Counter(), []

    def choose(self, prompts, labels):
        assert list(labels) == ["0", "1", "2", "3"]
        rows = []
        for message in prompts:
            if self.dies is not None and len(self.asked) == self.dies:
                raise RuntimeError("the power is gone")
            passage = next(part.text for part in message.parts if isinstance(part, Passage))
            query = next(part for part in message.parts[1:] if isinstance(part, str))
            self.asked.append((query, passage))
            grade = self.truth[query, passage]
            likely = -np.abs(np.arange(4.0) - grade) if grade is not None else np.full(4, -np.inf)
            rows.append(likely)
        self.usage["calls"] += len(prompts)
        advance(len(prompts))
        self.usage["prompt_tokens"] += 10 * len(prompts)
        self.usage["unreadable"] += sum(not np.isfinite(row).any() for row in rows)
        return np.array(rows)


def grade(query: int, doc: int) -> int:
    return (query * 7 + doc * 5 + doc * doc) % 4


def text(doc: int) -> str:
    return f"passage number {doc}"


TRUTH = {(f"question {q}", text(d)): grade(q, d) for q in range(5) for d in range(12)}


def pairs(queries=2, docs=12) -> list[tuple[Item, Item]]:
    return [
        (Item(f"q{q}", f"question {q}", lang="eng"), Item(f"d{d}", text(d), lang=LANGS[d % 3]))
        for q in range(queries)
        for d in range(docs)
    ]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A collection of 5 topics and 12 documents on disk, with human grades 0/1/3 and languages in column 2."""
    where = tmp_path / "news"
    where.mkdir()
    docs = [{"id": f"d{d}", "text": text(d), **({"lang": LANGS[d % 3]} if d != 11 else {})} for d in range(12)]
    topics = [{"id": f"q{q}", "text": f"question {q}", "lang": "eng" if q != 4 else "deu"} for q in range(5)]
    (where / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in docs))
    (where / "topics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in topics))
    lines = [
        f"q{q} {'0' if d == 11 else LANGS[d % 3]} d{d} {(0, 1, 3, 3)[grade(q, d)]}" for q in range(5) for d in range(10)
    ]
    (where / "qrels.txt").write_text("\n".join(lines) + "\n")
    return where


def trec(path: Path, ranking, queries=range(5)) -> Path:
    """A run that ranks each query's documents as `ranking(q)` says."""
    path.write_text("".join(f"q{q} Q0 d{d} {n} {100 - n} x\n" for q in queries for n, d in enumerate(ranking(q), 1)))
    return path


def test_grades_are_the_judges_and_each_content_is_asked_once():
    judge = Knowing(TRUTH)
    again = [(pairs()[0][0], Item("copy", text(0), lang="zho"))]
    done = []
    with watch(done.append):
        found = Assessor(judge, PROMPT)(pairs() + again)
    assert found.qrels == {
        "q0": {f"d{d}": grade(0, d) for d in range(12)} | {"copy": grade(0, 0)},
        "q1": {f"d{d}": grade(1, d) for d in range(12)},
    }
    assert len(judge.asked) == len(set(judge.asked)) == 24
    assert done == [1, 5, 9, 13, 17, 21, 25]  # the copy needs no answer of its own
    assert found.record.counts == {
        "pairs": 25, "unreadable_pairs": 0, "unseen": 0, "calls": 24, "prompt_tokens": 240,
    }  # fmt: skip
    assert found.record.models == {"knowing": "7"}
    assert found.resumed == 0


def test_a_probability_that_is_no_number_is_no_grade():
    judge = Knowing(TRUTH | {("question 0", text(3)): float("nan")})
    with pytest.raises(InputError, match=r"^knowing gave a probability that is not finite; try \?dtype=float32$"):
        Assessor(judge, PROMPT)(pairs())


def test_an_unreadable_answer_is_left_out_and_counted_never_zero(tmp_path):
    truth = TRUTH | {("question 0", text(3)): None, ("question 1", text(0)): None}
    found = Assessor(Knowing(truth), PROMPT)(pairs())
    assert found.unreadable == (("q0", "d3"), ("q1", "d0"))
    assert "d3" not in found.qrels["q0"]
    assert sum(map(len, found.qrels.values())) == 22
    assert found.record.counts["unreadable"] == found.record.counts["unreadable_pairs"] == 2
    found.to_trec(tmp_path / "qrels", langs={"d1": "spa"})
    grades, langs = read_qrels(tmp_path / "qrels")
    assert grades == found.qrels
    assert langs == {f"d{d}": LANGS[d % 3] for d in range(12)}
    assert Manifest.of_run(tmp_path / "qrels").records == (found.record,)


def test_a_language_not_known_is_written_as_0(tmp_path):
    question, document = pairs()[0]
    found = Assessor(Knowing(TRUTH), PROMPT)([(question, Item("bare", document.text))])
    found.to_trec(tmp_path / "one")
    assert (tmp_path / "one").read_text() == f"q0 0 bare {grade(0, 0)}\n"
    found.to_trec(tmp_path / "two", langs={"bare": "fas"})
    assert (tmp_path / "two").read_text() == f"q0 fas bare {grade(0, 0)}\n"


def test_a_stream_gets_the_qrels_and_nothing_stands_beside_it(tmp_path):
    wait = read_pipe(tmp_path / "pipe")
    report = AssessmentTask(tmp_path / "pipe", tuple(pairs())).judge_with(Assessor(Knowing(TRUTH), PROMPT))
    report.assessment.to_trec(tmp_path / "file")
    assert wait() == (tmp_path / "file").read_bytes()
    assert {each.name for each in tmp_path.iterdir()} == {"pipe", "file", "file.manifest.json"}


@pytest.mark.parametrize("dies", [0, 1, 4, 9, 23])
def test_a_killed_assessment_asks_only_what_is_missing_and_ends_the_same(tmp_path, dies):
    truth = TRUTH | {("question 0", text(1)): None}
    journal = tmp_path / "journal"
    whole = Assessor(Knowing(truth), PROMPT)(pairs())
    dying = Knowing(truth, dies=dies)
    with pytest.raises(RuntimeError, match="power"):
        Assessor(dying, PROMPT)(pairs(), journal=journal)
    with journal.open("a") as out:
        out.write('{"key": "torn')  # what a kill in the middle of a line leaves
    fresh = Knowing(truth)
    found = Assessor(fresh, PROMPT)(pairs(), journal=journal)
    assert found.resumed == dies  # of so little work every answer is kept by itself
    assert fresh.asked == [(q.text, d.text) for q, d in pairs()[dies:]]
    assert found.qrels == whole.qrels
    assert found.unreadable == whole.unreadable
    assert found.record.counts == whole.record.counts
    third = Knowing(truth, dies=0)
    assert Assessor(third, PROMPT)(pairs(), journal=journal).qrels == whole.qrels


def test_a_journal_serves_only_the_same_judge_prompt_and_content(tmp_path):
    journal = tmp_path / "journal"
    one = pairs(1, 1)
    Assessor(Knowing(TRUTH), PROMPT)(one, journal=journal)
    (query, document), other = one[0], Prompt.parse(GRADED.replace("Grade:", "Mark:"), "graded-test")
    for judge, prompt, asked in (
        (Knowing(TRUTH, fingerprint="other"), PROMPT, one),
        (Knowing(TRUTH), other, one),
        (Knowing(TRUTH), PROMPT, [(query, Item("d0", text(1), lang="zho"))]),
        (Knowing(TRUTH), PROMPT, [(query, Item("d0", text(0), lang="fas"))]),
        (Knowing(TRUTH), PROMPT, [(Item("q0", "question 0", lang="eng", meta={"instruction": "be strict"}), document)]),
    ):
        assert Assessor(judge, prompt)(asked, journal=journal).resumed == 0
        assert len(judge.asked) == 1
    renamed = [(Item("other", "question 0", lang="eng"), Item("name", text(0), lang="zho"))]
    found = Assessor(judge := Knowing(TRUTH), PROMPT)(renamed, journal=journal)
    assert (found.resumed, judge.asked, found.qrels) == (1, [], {"other": {"name": grade(0, 0)}})


def test_batches_grow_to_the_judges_appetite_while_they_are_quick():
    class Hungry(Knowing):
        appetite = 32

        def choose(self, prompts, labels):
            self.usage["rounds"] += 1
            return super().choose(prompts, labels)

    judge = Hungry(TRUTH)
    Assessor(judge, PROMPT)(pairs(queries=5))
    assert judge.usage["rounds"] == 3  # 16, 32, and the 12 that are left


def test_a_photo_before_a_text_judge_is_refused_before_any_work_or_skipped():
    judge = Knowing(TRUTH)
    asked = [*pairs(1, 2), (pairs()[0][0], Item("photo", image=b"a picture"))]
    with pytest.raises(InputError, match="text only and cannot judge 1 of the pairs .first: q0/photo"):
        Assessor(judge, PROMPT)(asked)
    assert not judge.asked
    found = Assessor(judge, PROMPT)(asked, unseen="skip")
    assert found.unseen == (("q0", "photo"),)
    assert list(found.qrels["q0"]) == ["d0", "d1"]
    assert found.record.counts["unseen"] == 1
    with pytest.raises(InputError, match="did you mean skip"):
        Assessor(judge, PROMPT)(asked, unseen="skp")


def test_pairs_and_prompts_that_cannot_become_qrels_are_refused():
    query, document = pairs()[0]
    with pytest.raises(InputError, match="'d0' is to be judged twice for query 'q0'"):
        Assessor(Knowing(TRUTH), PROMPT)([(query, document), (query, document)])
    with pytest.raises(InputError, match="'a b' cannot stand in TREC qrels"):
        Assessor(Knowing(TRUTH), PROMPT)([(query, Item("a b", text(0)))])
    with pytest.raises(InputError, match="likelihood gives no grades"):
        Assessor(Knowing(TRUTH), load_prompt("likelihood"))
    half = Prompt.parse(GRADED.replace("1, 2, 3]", "0.5, 2, 3]"), "half")
    with pytest.raises(InputError, match=r"half gives the grade 0\.5"):
        Assessor(Knowing(TRUTH), half)
    generated = Prompt.parse(GRADED.replace("choose", "generate"), "generated")
    with pytest.raises(InputError, match="cannot answer `generate`"):
        Assessor(Knowing(TRUTH), generated)


def test_the_pool_is_the_union_of_the_runs_first_documents_by_best_rank(folder, tmp_path):
    one = trec(tmp_path / "one.trec", lambda q: range(12), queries=[0, 1])
    two = trec(tmp_path / "two.trec", lambda q: [5, 1, 0], queries=[1, 2])
    task = plan_assessment(load_collection(folder), tmp_path / "out", runs=[one, two], depth=2)
    assert [(q.id, d.id) for q, d in task.pairs] == [
        ("q0", "d0"), ("q0", "d1"), ("q1", "d0"), ("q1", "d5"), ("q1", "d1"), ("q2", "d5"), ("q2", "d1"),
    ]  # fmt: skip
    assert list(task.runs) == ["one", "two"]
    assert len(task.runs["one"]["q0"]) == 12  # measured in whole, though judged at the top
    own = plan_assessment(load_collection(folder), tmp_path / "out", qrels="collection")
    assert Counter(q.id for q, _ in own.pairs) == {f"q{q}": 10 for q in range(5)}
    only = plan_assessment(load_collection(folder), tmp_path / "out", qrels="collection", lang="german")
    assert {q.id for q, _ in only.pairs} == {"q4"}
    assert set(only.left_out) == {"q0", "q1", "q2", "q3"}


def test_mistakes_are_named_before_any_work(folder, tmp_path):
    good = trec(tmp_path / "good.trec", lambda q: range(3))
    source = load_collection(folder)

    def refused(match, output=tmp_path / "out", **options):
        with pytest.raises(InputError, match=match):
            plan_assessment(source, output, **options)

    refused("no pairs to judge: give --run")
    refused("no directory", output=tmp_path / "none" / "out", runs=[good])
    refused("a directory, not a regular file", output=tmp_path, runs=[good])
    refused("written over .*good.trec", output=good, runs=[good])
    refused("written over .*qrels.txt", output=folder / "qrels.txt", qrels="collection")
    refused("depth must be at least 1", runs=[good], depth=0)
    refused("unknown measure 'nDGC@20'; did you mean nDCG@20", runs=[good], measure="nDGC@20")
    refused("did you mean skip", runs=[good], unseen="skipp")
    refused("given twice", runs=[good, good])
    refused("documents are not in the collection news: d70, d71", runs=[trec(tmp_path / "far", lambda q: [1, 70, 71])])
    strange = trec(tmp_path / "strange", lambda q: [1], queries=[1, 7, 8])
    refused("the runs have topics that are not in the collection news: q7, q8", runs=[strange])
    english = trec(tmp_path / "english", lambda q: [1], queries=[1, 2])
    refused("the runs have topics that are not in the collection news in deu: q1, q2", runs=[english], lang="de")
    (tmp_path / "human").write_text("q9 0 d1 3\n")
    refused(
        "have no topic in common: the runs have q0, q1.* the qrels have q9", runs=[good], qrels=str(tmp_path / "human")
    )
    refused("human judges topics that are not in the collection news: q9", qrels=str(tmp_path / "human"))
    (tmp_path / "empty").write_text("")
    refused("the runs have no hits", runs=[tmp_path / "empty"])


@table(
    ("spec", "match"),
    [
        ("umbrela", "names no model"),
        ("yesno:heapsort@hf:x", "names a sorter"),
        ("likelihood@offline:gemma", "gives no grades"),
        ("nope@offline:gemma", "unknown prompt 'nope'"),
        ("{graded}@hff:x", "did you mean hf"),
        ("{graded}@hf:x?depth=3", "unknown option of .*@hf:x 'depth'"),
        ("{graded}@hf:x?languag=zho", "did you mean language"),
        ("{graded}@hf:x?passage_tokens=many", "not a number"),
        ("{graded}@hf:x?sees=all", "unknown option of .*graded.toml@hf:x 'sees'"),
    ],
)
def test_specs_that_name_no_assessor(spec, match, tmp_path):
    (tmp_path / "graded.toml").write_text(GRADED)
    with pytest.raises(InputError, match=match):
        parse_assessor(spec.format(graded=tmp_path / "graded.toml"))


@pytest.fixture
def knowing(monkeypatch, tmp_path):
    """The SPEC of a judge that knows the truth; `noise=1` shifts every third grade, `dies=N` ends it after N."""
    prompt = tmp_path / "graded.toml"
    prompt.write_text(GRADED)

    def factory(
        checkpoint: str, *, device: str = "auto", trust_remote_code: bool = False, noise: int = 0, dies: int = -1
    ):
        truth = {pair: (known + noise) % 4 if n % 3 == 0 else known for n, (pair, known) in enumerate(TRUTH.items())}
        if checkpoint == "mute":
            truth = dict.fromkeys(truth)
        return Knowing(truth, None if dies < 0 else dies)

    monkeypatch.setitem(sys.modules, "knowing", SimpleNamespace(open_knowing=factory))
    return f"{prompt}@py:knowing:open_knowing:truth"


def test_the_command_writes_qrels_and_reports_agreement(crosslens, knowing, folder, tmp_path):
    perfect = trec(tmp_path / "perfect.trec", lambda q: sorted(range(12), key=lambda d: -grade(q, d)))
    plain = trec(tmp_path / "plain.trec", lambda q: range(12))
    worst = trec(tmp_path / "worst.trec", lambda q: sorted(range(12), key=lambda d: grade(q, d)))
    out = tmp_path / "llm.qrels"
    command = ["judge", folder, "--judge", f"{knowing}?noise=1", "-o", out, "--depth", 11, "--qrels", "collection"]
    for run in (perfect, plain, worst):
        command += ["--run", run]
    status, printed, err = crosslens(*command, "-m", "nDCG@5", "--json")
    assert status == 0, err
    report = json.loads(printed)
    grades, langs = read_qrels(out)
    assert sum(map(len, grades.values())) == report["judged"] == 60
    assert langs == {f"d{d}": LANGS[d % 3] for d in range(11)}  # d11 has no language: 0
    expected = {pair: (g + 1) % 4 if n % 3 == 0 else g for n, (pair, g) in enumerate(TRUTH.items())}
    assert all(grades[f"q{q}"][f"d{d}"] == expected[f"question {q}", text(d)] for q in range(5) for d in range(12))
    whole = report["agreement"]["all"]
    assert (whole["pairs"], whole["lacking"], whole["extra"]) == (50, 0, 10)
    human = [(0, 1, 3, 3)[grade(q, d)] for q in range(5) for d in range(10)]
    judged = [expected[f"question {q}", text(d)] for q in range(5) for d in range(10)]
    from sklearn import metrics

    assert whole["kappa"] == pytest.approx(metrics.cohen_kappa_score(human, judged))
    assert set(report["agreement"]) == {"all", *LANGS, "unknown"}
    scores = report["systems"]["scores"]
    assert scores["perfect"]["human"] == pytest.approx(1)
    tau = scipy.stats.kendalltau(*zip(*((s["human"], s["judge"]) for s in scores.values()), strict=True))
    assert report["systems"]["kendall_tau"] == pytest.approx(tau.statistic)
    manifest = json.loads(Path(f"{out}.manifest.json").read_text())
    assert manifest["stages"] == report["stages"]
    assert manifest["stages"][0]["counts"]["calls"] == 60
    assert not Path(f"{out}.journal").exists()

    status, printed, err = crosslens(*command)
    assert status == 0, err
    assert printed.splitlines()[0] == f"{out}: 60 pairs of 5 topics judged by graded@knowing"
    assert "systems by nDCG@20 over 5 topics" in printed
    table = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.split()}
    assert table["all"][:3] == ["50", "0", "10"]
    assert table["all"][5] == f"{whole['kappa']:.3f}"


def test_the_command_without_runs_judges_the_same_pairs_and_says_what_is_missing(crosslens, knowing, folder, tmp_path):
    out = tmp_path / "again"
    status, printed, err = crosslens(
        "judge", folder, "--judge", knowing, "-o", out, "--qrels", folder / "qrels.txt", "--json"
    )
    assert status == 0, err
    report = json.loads(printed)
    assert report["judged"] == report["agreement"]["all"]["pairs"] == 50
    assert report["agreement"]["all"]["kappa_binary"]["1"] == 1
    assert report["systems"] is None
    run = trec(tmp_path / "run", lambda q: range(4))
    status, printed, err = crosslens(
        "judge", folder, "--judge", knowing, "-o", out, "--qrels", "collection", "--run", run
    )
    assert status == 0
    assert "systems are not compared: a ranking of systems needs 3 runs or more, not 1" in err
    assert [line.split()[2] for line in printed.splitlines() if line.startswith("  all")] == ["30"]


def test_a_killed_command_goes_on_where_it_was(crosslens, knowing, folder, tmp_path, monkeypatch):
    out = tmp_path / "llm.qrels"
    command = ["judge", folder, "-o", out, "--qrels", "collection", "--judge"]
    monkeypatch.setattr(Knowing, "choose", interrupting(Knowing.choose))
    status, printed, err = crosslens(*command, f"{knowing}?dies=21")
    assert status == 1
    assert "interrupted" in err
    assert not out.exists()
    assert Path(f"{out}.journal").exists()
    status, printed, err = crosslens(*command, knowing, "--json")
    assert status == 0, err
    assert json.loads(printed)["resumed"] == 20
    assert json.loads(printed)["stages"][0]["counts"]["calls"] == 50
    assert "20 of 50 pairs were judged before" in json.loads(printed)["notes"][0]
    assert not Path(f"{out}.journal").exists()


def interrupting(choose):
    def wrapped(self, prompts, labels):
        try:
            return choose(self, prompts, labels)
        except RuntimeError:
            raise KeyboardInterrupt from None

    return wrapped


def test_a_judge_without_one_readable_answer_writes_nothing(crosslens, knowing, folder, tmp_path):
    out = tmp_path / "out"
    mute = knowing.replace(":truth", ":mute")
    status, printed, err = crosslens("judge", folder, "-o", out, "--qrels", "collection", "--judge", mute)
    assert status == 2
    assert not printed
    assert "gave no grade that could be read" in err
    assert "50 unreadable" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graded.toml", "news"]


def test_a_real_model_judges(crosslens, folder, tmp_path, tiny_judge):
    (tmp_path / "graded.toml").write_text(GRADED)
    spec = f"{tmp_path / 'graded.toml'}@hf:{tiny_judge}?dtype=float32"
    out = tmp_path / "out"
    status, printed, err = crosslens("judge", folder, "-o", out, "--qrels", "collection", "--judge", spec, "--json")
    assert status == 0, err
    report = json.loads(printed)
    assert report["judged"] == 50
    assert set(report["grades"]) <= {"0", "1", "2", "3"}
    ((name, revision),) = report["stages"][0]["models"].items()
    assert name.startswith("hf:")
    assert len(revision) == 16
