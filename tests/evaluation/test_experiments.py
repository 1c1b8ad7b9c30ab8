"""`crosslens experiment`: plans, pipelines in a line, reuse, what a run leaves, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from crosslens import InputError, Item, Run, Stage, merge, roundrobin, rrf, zscore
from crosslens.evaluation.experiment import conduct
from crosslens.evaluation.experiment.memory import peak
from crosslens.evaluation.experiment.plan import Plan
from crosslens.evaluation.experiment.store import Kept, Store
from crosslens.evaluation.experiment.survey import questions, survey
from crosslens.multilingual.reranking import rerank
from crosslens.systems import stages as leaves
from crosslens.systems.grammar import parse

LEAST = {"collections": ["demo"], "systems": {"dense": "dense"}}


@dataclass(frozen=True)
class Named(Stage):
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Says(Stage):
    """Gives every query the same hits, and notes that it was asked."""

    hits: tuple[tuple[str, float], ...]
    asked: list[str] = field(default_factory=list, compare=False)

    def apply(self, run: Run, count: Counter[str]) -> Run:
        self.asked.append("!")
        count["queries"] += len(run)
        return run.ranking({query.id: self.hits for query in run.queries})


# Pipelines


def test_pipelines_are_what_the_same_line_of_python_is():
    a, b, c = Named("a"), Named("b?x=1,2&y=3"), Named("p:s@hf:m?depth=5")
    for line, stage in (
        ("a", a),
        ("a >> p:s@hf:m?depth=5", a >> c),
        ("a % 100 >> p:s@hf:m?depth=5 % 10", a % 100 >> c % 10),
        ("zscore(a) + 0.5 * zscore(b?x=1,2&y=3)", zscore(a) + 0.5 * zscore(b)),
        ("rrf(a, b?x=1,2&y=3, k=20) % 7", rrf(a, b, k=20) % 7),
        ("roundrobin(a, a >> a)", roundrobin(a, a >> a)),
        ("merge(a,\n b?x=1,2&y=3)", merge(a, b)),
        ("(a + a) % 3 >> a", (a + a) % 3 >> a),
        ('"a b (c)" >> a', Named("a b (c)") >> a),
    ):
        parsed = parse(line, Named)
        assert parsed == stage, line
        assert parsed.fingerprint == stage.fingerprint


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "a stage was expected at character 1, not the end"),
        ("a >>", "a stage was expected at character 5"),
        ("a b", "an operator (>>, %, +) or the end was expected at character 3, not 'b'"),
        ("rrf(a", "a ) was expected"),
        ("rff(a)", "did you mean rrf?"),
        ("rrf(a, K=3)", "unknown option of rrf 'K'"),
        ("a % x", "a whole number was expected"),
        ("a % 0", "a cutoff must be at least 1"),
        ("zscore(a, b)", "takes one pipeline, not 2"),
        ("'a", "begins nothing that is known"),
    ],
)
def test_a_wrong_line_is_told_with_its_place(line, said):
    with pytest.raises(InputError) as error:
        parse(line, Named)
    assert said in str(error.value)


def test_merge_takes_scores_as_they_are():
    queries = [Item("q", "x")]
    merged = merge(Says((("a", 3.0), ("b", 1.0))), Says((("c", 2.0), ("b", 2.5))))(queries)
    assert [tuple(hit) for hit in merged["q"]] == [("a", 3.0), ("b", 2.5), ("c", 2.0)]
    with pytest.raises(InputError, match="at least one"):
        merge()


# Plans


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"collections": ["demo"]}, "no systems"),
        ({**LEAST, "mesures": ["AP"]}, "did you mean measures?"),
        ({**LEAST, "measures": ["nDGC@20"]}, "nDGC@20"),
        ({**LEAST, "baseline": "dens"}, "did you mean dense?"),
        ({**LEAST, "correction": "holms"}, "did you mean holm?"),
        ({**LEAST, "k": 0}, "k must be at least 1"),
        ({**LEAST, "k": "many"}, "k must be a whole number"),
        ({**LEAST, "interval": 95}, "between 0 and 1"),
        ({**LEAST, "fields": "titel"}, "did you mean title?"),
        ({**LEAST, "systems": {"a": {"pipeline": "dense"}}}, "[systems] must be a table"),
        ({**LEAST, "collections": ["demo", "demo"]}, "the collection demo is given twice"),
    ],
)
def test_a_plan_says_what_is_wrong_with_it(told, said):
    with pytest.raises(InputError) as error:
        Plan.of(told)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("dens", "did you mean dense?"),
        ("dense?encoder=e6", "known: e5"),
        ("dense?lnag=rus", "did you mean lang?"),
        ("dense?documents=english", "unknown documents"),
        ("lexical?encoder=e5", "lexical search has no encoder"),
        ("dense?window=10&stride=20", "the stride of passages must be in 1..10, their window, not 20"),
        ("run?file=none.trec", "there is no run 'none.trec'"),
        ("translations?file=none.tsv", "there is no file 'none.tsv'"),
        ("dense >> likelihod@offline:gemma", "did you mean likelihood?"),
        ("dense >> likelihood@offline:gemma?depht=3", "did you mean depth?"),
        ("translate@offline:gemma >> dense", "does not say into which language"),
    ],
)
def test_a_wrong_system_is_named_before_anything_is_read(line, said):
    plan = Plan.of({**LEAST, "encoders": {"e5": "offline:e5-small"}, "systems": {"mine": line}})
    with pytest.raises(InputError) as error:
        conduct.systems(plan)
    assert "the system 'mine'" in str(error.value)
    assert said in str(error.value)


def test_two_systems_of_one_name_are_refused(crosslens, tmp_path):
    file = tmp_path / "two.toml"
    file.write_text('collections = ["demo"]\n[systems]\na = "dense"\na = "lexical"\n')
    status, out, err = crosslens("experiment", file)
    assert (status, out) == (2, "")
    assert "a name is given twice" in err
    assert "line 4" in err


# Reuse


def test_a_stage_is_computed_once_for_one_input(tmp_path):
    store = Store(tmp_path, "content", "1")
    stage, taken = Says((("a", 1 / 3), ("b", -2e-300))), []
    queries = [Item("q1", "x", lang="eng", meta={"n": 1}), Item("q2", "y")]
    first = Kept(stage, store, taken)(queries)
    second = Kept(stage, store, taken)(queries)
    assert stage.asked == ["!"]
    assert taken == ["says"]
    assert second == first
    assert second["q1"][0].score == 1 / 3
    assert second.queries == first.queries
    assert second.manifest == first.manifest
    # Another query text, other documents, another program: another result.
    Kept(stage, store, taken)([Item("q1", "z"), Item("q2", "y")])
    Kept(stage, Store(tmp_path, "others", "1"), taken)(queries)
    Kept(stage, Store(tmp_path, "content", "2"), taken)(queries)
    assert len(stage.asked) == 4


def test_an_unfinished_result_is_never_used(tmp_path):
    store = Store(tmp_path, "content", "1")
    stage = Says((("a", 1.0),))
    queries = [Item("q", "x")]
    Kept(stage, store, [])(queries)
    (done,) = tmp_path.glob("*.parquet")
    done.rename(done.with_name(f".{done.name}.1.partial"))  # as a killed process leaves it
    Kept(stage, store, [])(queries)
    assert len(stage.asked) == 2
    done.write_bytes(done.read_bytes()[:-9])
    with pytest.raises(InputError, match="is damaged"):
        Kept(stage, store, [])(queries)


def test_a_kept_stage_is_described_as_the_stage_itself(tmp_path):
    stage = Says((("a", 1.0),))
    kept = Kept(stage, Store(tmp_path, "", ""), [])
    assert (kept >> Named("b")).fingerprint == (stage >> Named("b")).fingerprint
    assert rrf(kept, kept).fingerprint == rrf(stage, stage).fingerprint


def test_peak_memory_is_that_of_the_block():
    with peak() as highest:
        held = bytearray(80_000_000)
        held[::4096] = b"x" * len(held[::4096])
        del held
    with_it = highest()
    with peak() as highest:
        pass
    if with_it is None:
        pytest.skip("this system does not tell")
    assert with_it - highest() > 60_000_000


# The whole of it


def collection(where: Path, docs: dict[str, tuple[str, str]], extra: str = "") -> Path:
    where.mkdir(parents=True)
    with (where / "docs.jsonl").open("w") as out:
        for id, (lang, text) in docs.items():
            out.write(json.dumps({"id": id, "lang": lang, "text": text}, ensure_ascii=False) + "\n")
    return where


TEXTS = {
    "r1": ("rus", "Кошка спит весь день."),
    "r2": ("rus", "Собака лает ночью."),
    "z1": ("zho", "猫整天睡觉，晚上捕猎。"),
    "z2": ("zho", "狗在晚上叫。"),
    "e1": ("eng", "The cat sleeps all day and hunts at night."),
    "e2": ("eng", "Nobody knows where the river ends."),
}
WORDS = {
    "1": {"eng": "when does a cat sleep", "rus": "когда спит кошка", "zho": "猫什么时候睡觉"},
    "2": {"eng": "dogs at night", "rus": "собака ночью", "zho": "狗晚上"},
    "3": {"eng": "rivers", "rus": "река", "zho": "河"},
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Six documents in three languages; NeuCLIR topics in three languages."""
    where = collection(tmp_path / "small", TEXTS)
    with (where / "topics.jsonl").open("w") as out:
        for id, words in WORDS.items():
            topics = [
                {"lang": lang, "source": "original" if lang == "eng" else "Google MT", "topic_title": text,
                 "topic_description": text}
                for lang, text in words.items()
            ]  # fmt: skip
            out.write(
                json.dumps({"topic_id": id, "languages_with_qrels": ["rus", "zho", "eng"], "topics": topics})
                + "\n"
            )
    (where / "qrels.txt").write_text("1 0 r1 3\n1 0 z1 3\n1 0 e1 1\n2 0 r2 3\n2 0 z2 3\n3 0 e2 3\n3 0 r1 0\n")
    return where


def experiment(where: Path, small: Path, encoder: Path, systems: dict[str, str], **more: object) -> Path:
    lines = {"collections": [str(small)], "fields": "title", "measures": ["nDCG@5", "R@5"], **more}
    text = "\n".join(f"{key} = {json.dumps(value)}" for key, value in lines.items())
    text += f'\n[encoders]\ntiny = "hf:{encoder}?pooling=mean"\n[systems]\n'
    text += "\n".join(f"{json.dumps(name)} = {json.dumps(line)}" for name, line in systems.items())
    file = where / "experiment.toml"
    file.write_text(text)
    return file


SYSTEMS = {
    "dense": "dense?encoder=tiny&correct=false",
    "dense, corrected": "dense?encoder=tiny",
    "lexical": "lexical",
    "lexical, topics translated": "roundrobin(topics?lang=rus&source=machine >> lexical?lang=rus, "
    "topics?lang=zho&source=machine >> lexical?lang=zho)",
    "merged": "merge(zscore(dense?encoder=tiny&lang=rus), zscore(dense?encoder=tiny&lang=zho))",
    "passages": "dense?encoder=tiny&window=6&stride=3",
}


def test_an_experiment_leaves_runs_manifests_measures_tables_and_a_report(
    crosslens, tmp_path, small, tiny_encoder
):
    file = experiment(tmp_path, small, tiny_encoder, SYSTEMS, baseline="dense", interval=0.9)
    status, out, err = crosslens("experiment", file, "--json")
    assert status == 0, err
    told = json.loads(out)
    assert json.loads((tmp_path / "experiment.results" / "results.json").read_text()) == told
    (part,) = told["collections"]
    assert [system["name"] for system in part["table"]["systems"]] == list(SYSTEMS)
    assert part["table"]["per"] == "doc_lang"
    means = {system["name"]: system["means"]["nDCG@5"] for system in part["table"]["systems"]}
    # Queries in the documents' own languages find by words what English ones cannot.
    assert means["lexical, topics translated"]["rus"] == 1.0
    assert means["lexical, topics translated"]["zho"] == 1.0
    assert means["lexical"]["rus"] == 0.0
    results = tmp_path / "experiment.results"
    for name, outcome in part["systems"].items():
        folder = results / outcome["folder"]
        run = Run.from_trec(folder / "run.trec")
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["pipeline"] == SYSTEMS[name]
        assert manifest["provenance"]["versions"]["lancedb"]
        assert manifest["collection"]["content"]
        assert all(len(stage["fingerprint"]) == 12 for stage in manifest["stages"])
        values = [json.loads(line) for line in (folder / "measures.jsonl").read_text().splitlines()]
        assert [each["topic"] for each in values] == ["1", "2", "3"]
        mean = sum(each["measures"]["nDCG@5"] for each in values) / 3
        assert mean == pytest.approx(means[name]["all"])
        assert run.hits["1"]
    merged = Run.from_trec(results / part["systems"]["merged"]["folder"] / "run.trec")
    assert {hit.id[0] for hit in merged["1"]} == {"r", "z"}
    passages = Run.from_trec(results / part["systems"]["passages"]["folder"] / "run.trec")
    assert {hit.id for hit in passages["1"]} == set(TEXTS)
    for name in ("tables.md", "tables.tex", "report.html"):
        assert "lexical, topics translated" in (results / name).read_text()
    assert "<svg" in (results / "report.html").read_text()


def test_a_rerun_computes_nothing_that_is_there_and_a_new_system_only_its_own(
    crosslens, tmp_path, small, tiny_encoder, tiny_judge
):
    judged = f"dense?encoder=tiny % 4 >> likelihood@hf:{tiny_judge}?depth=3"
    systems = {"dense": "dense?encoder=tiny", "judged": judged}
    file = experiment(tmp_path, small, tiny_encoder, systems)
    status, out, err = crosslens("experiment", file, "--json")
    assert status == 0, err
    first = json.loads(out)["collections"][0]
    assert [len(each["reused"]) for each in first["systems"].values()] == [
        0,
        1,
    ]  # the prefix is computed once
    assert first["systems"]["judged"]["cost"]["calls"] == 9
    run = (tmp_path / "experiment.results" / first["systems"]["judged"]["folder"] / "run.trec").read_bytes()

    experiment(tmp_path, small, tiny_encoder, {**systems, "cut": judged + " % 2"})
    status, out, err = crosslens("experiment", file, "--json")
    assert status == 0, err
    second = json.loads(out)["collections"][0]
    assert [len(each["reused"]) for each in second["systems"].values()] == [1, 2, 2]
    assert second["systems"]["judged"]["cost"] == first["systems"]["judged"]["cost"]
    assert (
        tmp_path / "experiment.results" / second["systems"]["judged"]["folder"] / "run.trec"
    ).read_bytes() == run

    # Another document in the collection: nothing of the old one is taken for it.
    with (small / "docs.jsonl").open("a") as more:
        more.write('{"id": "e3", "lang": "eng", "text": "A cat sleeps when it is dark."}\n')
    status, out, err = crosslens("experiment", file, "--json")
    assert status == 0, err
    third = json.loads(out)["collections"][0]
    assert [len(each["reused"]) for each in third["systems"].values()] == [0, 1, 2]
    assert third["counts"]["documents"] == 7


def test_a_dry_run_tells_documents_tokens_and_calls_and_makes_no_index(
    crosslens, tmp_path, small, tiny_encoder, tiny_judge
):
    systems = {
        "pointwise": f"dense?encoder=tiny >> yesno@hf:{tiny_judge}?depth=5",
        "pairs": f"dense?encoder=tiny >> pairwise:allpairs@hf:{tiny_judge}?depth=4&orders=both",
    }
    file = experiment(tmp_path, small, tiny_encoder, systems)
    status, out, err = crosslens("experiment", file, "--dry-run", "--json")
    assert status == 0, err
    (told,) = json.loads(out)["collections"]
    assert (told["documents"], told["queries"]) == (6, 3)
    (index,) = told["indexes"]
    assert index["state"] == "to do"
    assert 60 < index["tokens"] < 200
    assert {each["system"]: each["calls"] for each in told["systems"]} == {"pointwise": 15, "pairs": 36}
    assert not (tmp_path / "experiment.results" / "indexes").exists()
    status, out, err = crosslens("experiment", file, "--dry-run")
    assert "about 36 judge calls" in out


def test_estimated_questions_are_those_that_a_sorter_asks():
    asked, shown = questions(rerank.read("setwise:heapsort@offline:gemma?depth=100&k=10&arity=3"))
    assert 40 < asked < 100
    assert asked * 2 <= shown <= asked * 4


@pytest.mark.parametrize("alone", [False, True], ids=["a directory", "a file, as of `crosslens translate`"])
def test_other_versions_of_the_documents(crosslens, tmp_path, small, tiny_encoder, alone):
    english = {id: ("eng", text) for id, text in zip(TEXTS, ["the cat sleeps", "the dog barks at night", "cats sleep",
               "dogs at night", "a cat sleeps", "a river"], strict=True)}  # fmt: skip
    other = collection(tmp_path / "english", english)
    file = experiment(tmp_path, small, tiny_encoder, {"translated": "lexical?documents=english"})
    where = str(other / "docs.jsonl" if alone else other)
    file.write_text(
        file.read_text().replace("[systems]", f"[documents]\nenglish = {json.dumps(where)}\n[systems]")
    )
    status, out, err = crosslens("experiment", file, "--json")
    assert status == 0, err
    (system,) = json.loads(out)["collections"][0]["table"]["systems"]
    assert (
        system["means"]["R@5"]["zho"] == 1.0
    )  # languages are those of the documents, not of the translations
    (other / "docs.jsonl").write_text('{"id": "r1", "text": "the cat"}\n{"id": "x9", "text": "none"}\n')
    status, _, err = crosslens("experiment", file)
    assert status == 2
    assert "1 of its 2 documents are unknown there (x9), and 5 of 6 are lacking" in err


def test_runs_of_others_and_translations_from_a_file(crosslens, tmp_path, small, tiny_encoder, tiny_judge):
    run = tmp_path / "theirs.trec"
    run.write_text(
        "".join(f"{topic} Q0 {doc} 1 {5 - n} x\n" for topic in "123" for n, doc in enumerate(TEXTS))
    )
    words = tmp_path / "words.tsv"
    words.write_text("".join(f"{id}\t{of['rus']}\n" for id, of in WORDS.items()))
    systems = {
        "theirs": f"run?file={run}",
        "reranked": f"run?file={run} >> likelihood@hf:{tiny_judge}?depth=3",
        "lexical": f"translations?file={words}&to=rus >> lexical",
    }
    file = experiment(tmp_path, small, tiny_encoder, systems)
    for _ in range(2):  # the second time from disk
        status, out, err = crosslens("experiment", file, "--json")
        assert status == 0, err
        part = json.loads(out)["collections"][0]
        means = {system["name"]: system["means"] for system in part["table"]["systems"]}
        assert means["lexical"]["nDCG@5"]["rus"] == 1.0
        assert part["systems"]["reranked"]["cost"]["calls"] == 9
    assert [len(each["reused"]) for each in part["systems"].values()] == [1, 2, 2]


def test_no_judgements_and_bad_input_are_one_line(crosslens, tmp_path, small, tiny_encoder):
    file = experiment(tmp_path, small, tiny_encoder, {"lexical": "lexical"}, query_lang="deu")
    status, out, err = crosslens("experiment", file)
    assert (status, out) == (2, "")
    assert "deu" in err
    (small / "qrels.txt").unlink()
    file = experiment(tmp_path, small, tiny_encoder, {"lexical": "lexical"})
    status, _, err = crosslens("experiment", file)
    assert status == 2
    assert "an experiment needs judgements" in err
    status, _, err = crosslens("experiment", tmp_path / "none.toml")
    assert status == 2
    assert "cannot read the experiment" in err


def test_a_killed_experiment_goes_on(tmp_path, small, tiny_encoder):
    file = experiment(tmp_path, small, tiny_encoder, SYSTEMS)
    out = tmp_path / "experiment.results"
    command = [
        sys.executable,
        "-c",
        "from crosslens.commands.app import main; main()",
        "experiment",
        str(file),
        "--json",
    ]
    done = 0
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = len(list(out.glob("stages/*.parquet")))
        ends = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < ends:
            if len(list(out.glob("stages/*.parquet"))) > before:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.005)
        process.wait()
        done = len(list(out.glob("stages/*.parquet")))
        assert done > before or process.returncode == 0
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    part = json.loads(finished.stdout)["collections"][0]
    assert sum(len(each["reused"]) for each in part["systems"].values()) >= min(done, 3)
    assert set(part["systems"]) == set(SYSTEMS)


def test_every_leaf_has_a_name_that_is_told_when_it_is_unknown():
    with pytest.raises(InputError) as error:
        leaves.read("nothing", Plan.of(LEAST))
    assert all(name in str(error.value) for name in leaves.LEAVES)


def test_a_survey_knows_what_is_begun(tmp_path, small, tiny_encoder):
    file = experiment(tmp_path, small, tiny_encoder, {"dense": "dense?encoder=tiny"})
    plan = Plan.read(file)
    out = tmp_path / "out"
    (before,) = survey(plan, out)
    assert before.indexes[0].state == "to do"
    (out / "indexes" / before.indexes[0].folder).mkdir(parents=True)
    (begun,) = survey(plan, out)
    assert begun.indexes[0].state == "begun"
