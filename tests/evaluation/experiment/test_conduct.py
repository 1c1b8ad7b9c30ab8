"""`crosslens experiment`: what a run leaves, what is used again, and what is refused."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from crosslens import Run
from crosslens.evaluation.experiment.plan import Plan
from crosslens.evaluation.experiment.survey import survey_plan
from stand_ins.children import COMMAND, Child


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
                json.dumps({"topic_id": id, "languages_with_qrels": ["rus", "zho", "eng"], "topics": topics}) + "\n"
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


def test_an_experiment_leaves_runs_manifests_measures_tables_and_a_report(crosslens, tmp_path, small, tiny_encoder):
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
    assert [len(each["reused"]) for each in first["systems"].values()] == [0, 1]  # the prefix is computed once
    assert first["systems"]["judged"]["cost"]["calls"] == 9
    run = (tmp_path / "experiment.results" / first["systems"]["judged"]["folder"] / "run.trec").read_bytes()

    experiment(tmp_path, small, tiny_encoder, {**systems, "cut": judged + " % 2"})
    status, out, err = crosslens("experiment", file, "--json")
    assert status == 0, err
    second = json.loads(out)["collections"][0]
    assert [len(each["reused"]) for each in second["systems"].values()] == [1, 2, 2]
    assert second["systems"]["judged"]["cost"] == first["systems"]["judged"]["cost"]
    assert (tmp_path / "experiment.results" / second["systems"]["judged"]["folder"] / "run.trec").read_bytes() == run

    # Another document in the collection: nothing of the old one is taken for it.
    with (small / "docs.jsonl").open("a") as more:
        more.write('{"id": "e3", "lang": "eng", "text": "A cat sleeps when it is dark."}\n')
    status, out, err = crosslens("experiment", file, "--json")
    assert status == 0, err
    third = json.loads(out)["collections"][0]
    assert [len(each["reused"]) for each in third["systems"].values()] == [0, 1, 2]
    assert third["counts"]["documents"] == 7


def test_a_dry_run_names_documents_tokens_and_calls_and_makes_no_index(
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
    assert out.endswith("time unknown: nothing like it was measured here\n")
    assert crosslens("experiment", file)[0] == 0
    (done,) = json.loads(crosslens("experiment", file, "--dry-run", "--json")[1])["collections"]
    assert [(each["state"], each["seconds"]) for each in (*done["indexes"], *done["systems"])] == [("done", 0.0)] * 3
    # Elsewhere nothing is finished, and how long it takes on this machine is known by now.
    elsewhere = ("experiment", file, "--dry-run", "-o", tmp_path / "elsewhere")
    (again,) = json.loads(crosslens(*elsewhere, "--json")[1])["collections"]
    assert all(each["state"] == "to do" and each["seconds"] > 0 for each in (*again["indexes"], *again["systems"]))
    assert "in all about 1 minute or less, by what was measured on this machine" in crosslens(*elsewhere)[1]


@pytest.mark.parametrize("alone", [False, True], ids=["a directory", "a file, as of `crosslens translate`"])
def test_other_versions_of_the_documents(crosslens, tmp_path, small, tiny_encoder, alone):
    english = {id: ("eng", text) for id, text in zip(TEXTS, ["the cat sleeps", "the dog barks at night", "cats sleep",
               "dogs at night", "a cat sleeps", "a river"], strict=True)}  # fmt: skip
    other = collection(tmp_path / "english", english)
    file = experiment(tmp_path, small, tiny_encoder, {"translated": "lexical?documents=english"})
    where = str(other / "docs.jsonl" if alone else other)
    file.write_text(file.read_text().replace("[systems]", f"[documents]\nenglish = {json.dumps(where)}\n[systems]"))
    status, out, err = crosslens("experiment", file, "--json")
    assert status == 0, err
    (system,) = json.loads(out)["collections"][0]["table"]["systems"]
    assert system["means"]["R@5"]["zho"] == 1.0  # languages are those of the documents, not of the translations
    (other / "docs.jsonl").write_text('{"id": "r1", "text": "the cat"}\n{"id": "x9", "text": "none"}\n')
    status, _, err = crosslens("experiment", file)
    assert status == 2
    assert "1 of its 2 documents are unknown there (x9), and 5 of 6 are lacking" in err


def test_runs_of_others_and_translations_from_a_file(crosslens, tmp_path, small, tiny_encoder, tiny_judge):
    run = tmp_path / "theirs.trec"
    run.write_text("".join(f"{topic} Q0 {doc} 1 {5 - n} x\n" for topic in "123" for n, doc in enumerate(TEXTS)))
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


def test_queries_are_rewritten_in_the_languages_of_the_collection(crosslens, tmp_path, small, tiny_encoder):
    systems = {"lexical": "lexical", "rewritten": "question@py:stand_ins.writing:Writer?lang=document >> lexical"}
    file = experiment(tmp_path, small, tiny_encoder, systems)
    status, _, err = crosslens("experiment", file, "-o", tmp_path / "out")
    assert status == 0, err
    stages = [
        json.loads(path.read_text())["stages"] for path in sorted((tmp_path / "out").rglob("run.trec.manifest.json"))
    ]
    assert [each[0]["stage"] for each in stages if len(each) > 1] == ["rewrite(question@writer, lang=eng,rus,zho)"]
    (written,) = (tmp_path / "out").rglob("run.trec.rewrites.jsonl")
    assert [len(json.loads(line)["probes"]) for line in written.read_text().splitlines()] == [3, 3, 3]
    runs = [path.read_text() for path in sorted((tmp_path / "out").rglob("run.trec"))]
    assert sum("1 Q0 z1 " in run for run in runs) == 1  # which shares no word with the query


def test_the_usual_measures_need_no_language_of_every_relevant_document(crosslens, tmp_path, small, tiny_encoder):
    with (small / "docs.jsonl").open("a") as out:
        out.write('{"id": "n1", "text": "4711"}\n')
    with (small / "qrels.txt").open("a") as out:
        out.write("3 0 n1 1\n")
    file = experiment(tmp_path, small, tiny_encoder, {"lexical": "lexical"}, measures=[])
    status, out, err = crosslens("experiment", file, "--json")
    assert status == 0, err
    table = json.loads(out)["collections"][0]["table"]
    assert "nDCG@20" in table["measures"]
    assert "alpha_nDCG@20" not in table["measures"]
    assert {"rus", "zho"} <= set(table["systems"][0]["means"]["nDCG@20"])


def test_a_line_means_the_same_however_few_results_are_kept(crosslens, tmp_path, small, tiny_encoder, tiny_judge):
    line = f"dense?encoder=tiny >> likelihood@hf:{tiny_judge}?depth=4"
    file = experiment(tmp_path, small, tiny_encoder, {"reranked": line}, k=1)
    status, out, err = crosslens("experiment", file, "--json")
    assert status == 0, err
    assert json.loads(out)["collections"][0]["systems"]["reranked"]["cost"]["calls"] == 12


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
    assert "cannot read" in err


def test_a_killed_experiment_goes_on(crosslens, tmp_path, small, tiny_encoder):
    file = experiment(tmp_path, small, tiny_encoder, SYSTEMS)
    out = tmp_path / "experiment.results"
    done = 0
    for _ in range(3):
        process = Child(COMMAND, "experiment", file, "--json")
        before = len(list(out.glob("stages/*.parquet")))
        ends = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < ends:
            if len(list(out.glob("stages/*.parquet"))) > before:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        process.wait()
        done = len(list(out.glob("stages/*.parquet")))
        assert done > before or process.returncode == 0
    status, stdout, err = crosslens("experiment", file, "--json")
    assert status == 0, err
    part = json.loads(stdout)["collections"][0]
    assert sum(len(each["reused"]) for each in part["systems"].values()) >= min(done, 3)
    assert set(part["systems"]) == set(SYSTEMS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("likelihood@py:nameless:Judging", "the judge Judging has no stable description: give it a `fingerprint`"),
        ("translate@py:nameless:Judging?to=rus", "the judge Judging has no stable description"),
        ("likelihood:py:nameless:Sorting@offline:gemma", "Sorting has no stable description"),
    ],
)
def test_what_has_no_stable_description_fails_before_any_work(
    crosslens, tmp_path, small, tiny_encoder, monkeypatch, line, message
):
    (tmp_path / "nameless.py").write_text("""
from crosslens.multilingual.judges import BaseJudge

class Judging(BaseJudge):
    can = frozenset({"likelihood", "generate"})
    def __init__(self, checkpoint="", *, device="auto", trust_remote_code=False):
        super().__init__("nameless", "1")

class Sorting:
    most = None
    def __call__(self, hits, k):
        yield from ()
""")
    monkeypatch.syspath_prepend(str(tmp_path))
    first = f"lexical >> {line}" if line.startswith("likelihood") else f"{line} >> lexical"
    file = experiment(tmp_path, small, tiny_encoder, {"dense": "dense?encoder=tiny", "own": first})
    status, _, err = crosslens("experiment", file)
    assert status == 2
    assert message in err
    assert len(err.splitlines()) == 1
    out = tmp_path / "experiment.results"
    assert not [each for each in ("indexes", "stages", "small") if (out / each).exists()]


def test_a_survey_knows_what_is_begun(tmp_path, small, tiny_encoder):
    file = experiment(tmp_path, small, tiny_encoder, {"dense": "dense?encoder=tiny"})
    plan = Plan.read(file)
    out = tmp_path / "out"
    (before,) = survey_plan(plan, out)
    assert before.indexes[0].state == "to do"
    (out / "indexes" / before.indexes[0].folder).mkdir(parents=True)
    (begun,) = survey_plan(plan, out)
    assert begun.indexes[0].state == "begun"


def test_what_is_excluded_is_chosen_for_all_systems_or_for_one(crosslens, tmp_path):
    """With another choice nothing that was kept is taken for it."""
    small = collection(tmp_path / "small", TEXTS)
    topics = [{"id": "e1", "lang": "eng", "text": TEXTS["e1"][1], "excluded_ids": ["r1", "z1"]}]
    (small / "topics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in topics))
    (small / "qrels.txt").write_text("e1 0 e2 1\n")
    found = {}
    for choice in ("listed", "self", "none", "listed"):
        lines = f'collections = [{json.dumps(str(small))}]\nmeasures = ["RR"]\nexclude = "{choice}"\n[systems]\n'
        (file := tmp_path / "e.toml").write_text(lines + 'own = "lexical"\nwithout = "lexical?exclude=self"\n')
        status, out, err = crosslens("experiment", file, "--json")
        assert status == 0, err
        outcomes = json.loads(out)["collections"][0]["systems"]
        runs = [Run.from_trec(tmp_path / "e.results" / each["folder"] / "run.trec") for each in outcomes.values()]
        found[choice] = [[hit.id for hit in run["e1"]] for run in runs]
    everything = found["none"][0]
    assert everything[0] == "e1"
    assert found["listed"][0] == [doc for doc in everything if doc not in ("r1", "z1")]
    assert found["self"][0] == [doc for doc in everything if doc not in ("r1", "z1", "e1")]
    assert found["self"][1] == found["none"][1] == found["listed"][1] == found["self"][0]
    file.write_text(file.read_text().replace('"listed"', '"mine"'))
    status, _, err = crosslens("experiment", file)
    assert status == 2
    assert "unknown choice of what to exclude 'mine'" in err
