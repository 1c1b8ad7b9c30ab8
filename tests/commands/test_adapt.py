"""`crosslens adapt`: one call from documents to a checkpoint, a comparison that does not flatter, and nothing leaked."""

from __future__ import annotations

import json

import PIL.Image
import pytest
from crosslens.encoders.registry import load_encoder
from crosslens.evaluation.evaluate import evaluate
from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from crosslens.runs import Hit, Run
from crosslens.training.adapt import adaptation
from crosslens.training.adapt.comparison import AFTER, BEFORE, Compared
from crosslens.training.adapt.subset import Made, hold_out
from crosslens.training.data.examples import load_examples
from stand_ins.query_writer import make_documents, write_collection

WRITER = "inpars@py:stand_ins.query_writer:QueryWriter?n=1"
RECIPE = 'loss = "contrast"\nbatch = 16\nsteps = 4\nlearning_rate = 1e-3\ndocument_tokens = 32\n'


@pytest.fixture
def source(tmp_path):
    return write_collection(tmp_path / "source", make_documents(180))


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "quick.toml").write_text(RECIPE)
    return tmp_path / "quick.toml"


@pytest.fixture
def trained_on(monkeypatch):
    """The examples that the encoder was trained on, by call."""
    seen = []
    genuine = adaptation.train_encoder

    def train(examples, *arguments, **options):
        seen.append(list(examples))
        return genuine(examples, *arguments, **options)

    monkeypatch.setattr(adaptation, "train_encoder", train)
    return seen


def test_from_documents_to_a_checkpoint_that_is_compared_on_what_it_never_saw(
    crosslens, source, recipe, tiny_encoder, tmp_path, trained_on
):
    out = tmp_path / "adapted"
    arguments = ("adapt", source, "--base", f"hf:{tiny_encoder}", "-o", out, "--recipe", recipe, "--generator", WRITER)
    status, said, err = crosslens(*arguments, "--json")
    assert status == 0, err
    made = json.loads(said)
    # Pages of these few words have translations by their vectors too, or none are found.
    assert {name for name in made["questions"] if "vectors" not in name} == {
        "titles",
        "ict",
        "translations?by=id",
        WRITER,
    }
    assert made["spec"].startswith(f"hf:{out}")
    assert made["verdict"] == made["compared"]["held out"]["verdict"] in ("better", "no different", "worse")
    base, after = load_encoder(f"hf:{tiny_encoder}").spec, load_encoder(made["spec"]).spec
    assert after.difference(base).startswith("revision:")
    assert after.difference(base).count(";") == 0

    # No document whose questions are held out, nor a translation of it, was a positive.
    (examples,) = trained_on
    assert len(examples) == made["examples"]["examples"] >= adaptation.LEAST
    pages = lambda ids: {id.partition("/")[2] for id in ids}  # noqa: E731
    positives = pages(each.id for example in examples for each in example.positives)
    # Nor was its title a question about another document, which vectors took for its translation.
    titles = {row["title"] for row in make_documents(180) if row["id"].partition("/")[2] not in positives}
    assert not titles & {example.query.text for example in examples}
    held = made["compared"]["held out"]["table"]["queries"]["all"]
    assert held >= len(set(range(60)) - {int(page.removeprefix("page")) for page in positives}) > 0

    # The same call finds what is there; another is refused, and so is what is no result.
    assert json.loads(crosslens(*arguments, "--json")[1]) == made
    status, said, err = crosslens(*arguments)
    assert (status, ("better than" in said)) == (0, True)
    assert crosslens(*arguments, "--seed", 5)[0] == 2


def test_own_judgements_decide_and_are_never_trained_on(
    crosslens, source, recipe, tiny_encoder, tmp_path, trained_on, monkeypatch, caplog
):
    monkeypatch.setattr(adaptation, "ENOUGH", 50)
    monkeypatch.setattr(adaptation, "COMPARED", 1e6)  # as if documents were slow to encode
    rows = make_documents(180)
    topics = [{"id": f"t{n}", "text": rows[n]["title"], "lang": rows[n]["lang"]} for n in range(0, 60, 2)]
    PIL.Image.new("RGB", (8, 8)).save(source / "picture.png")
    pictured = [{"id": "t60", "image": "picture.png"}]  # which no encoder of text reads
    (source / "topics.jsonl").write_text("".join(json.dumps(topic) + "\n" for topic in topics + pictured))
    with (source / "docs.jsonl").open("a") as documents:  # one that the base does not read, which answers two topics
        documents.write(json.dumps({"id": "photo", "image": "picture.png"}) + "\n")
    (source / "qrels.txt").write_text(
        "".join(f"t{n} 0 {rows[n]['id']} {int(n != 2)}\n" for n in range(0, 62, 2)) + "t0 0 photo 1\nt2 0 photo 1\n"
    )
    status, said, err = crosslens(
        "adapt", source, "--base", f"hf:{tiny_encoder}", "-o", tmp_path / "out", "--recipe", recipe, "--json"
    )  # fmt: skip
    assert status == 0, err
    made = json.loads(said)
    assert "more than are left: --minutes will not hold" in caplog.text
    assert "60 minutes were over before training began: it got one" in made["notes"]
    assert list(made["compared"]) == ["judged", "held out"]
    assert list(made["questions"]) == [
        "translations?by=id"
    ]  # where they are enough, no document is asked by its own words
    assert made["compared"]["judged"]["table"]["queries"]["all"] == 29
    assert f"1 documents hold nothing that hf:{tiny_encoder} reads, and are left out" in made["notes"]
    assert "1 judged topics hold more than text, and are left out of the comparison" in made["notes"]
    assert made["verdict"] == made["compared"]["judged"]["verdict"]
    (examples,) = trained_on
    assert not {topic["text"] for topic in topics} & {example.query.text for example in examples}


def test_killed_in_the_middle_the_same_call_goes_on(crosslens, source, recipe, tiny_encoder, tmp_path, monkeypatch):
    out = tmp_path / "adapted"
    arguments = ("adapt", source, "--base", f"hf:{tiny_encoder}", "-o", out, "--recipe", recipe, "--json")
    genuine = adaptation.compare

    def stop(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(adaptation, "compare", stop)
    assert crosslens(*arguments)[0] == 1
    assert not out.exists()
    assert load_examples(str(tmp_path / ".adapted.partial" / "examples.jsonl.gz")).card["examples"] > 0
    monkeypatch.setattr(adaptation, "compare", genuine)
    monkeypatch.setattr(adaptation.Synthesis, "_make", stop)  # what is finished is not made again
    monkeypatch.setattr(adaptation.Mining, "run", stop)
    status, said, err = crosslens(*arguments)
    assert status == 0, err
    assert json.loads(said)["verdict"]
    assert not (tmp_path / ".adapted.partial").exists()


def test_what_is_wrong_is_one_line(refused, source, recipe, tiny_encoder, tmp_path):
    call = ("adapt", source, "-o", tmp_path / "out", "--base")
    few = write_collection(tmp_path / "few", make_documents(6))
    refused(*call, f"hf:{tiny_encoder}?dtype=int8", parts=("int8 take no gradients",))
    refused(*call, "offline:use-m3", parts=("cannot be trained", "no gradients"))
    refused(*call, f"splade:{tiny_encoder}", parts=("makes no single vector of a text",))
    refused(*call, f"hf:{tiny_encoder}", "--judge", "setwise@hf:x", parts=("--judge setwise@hf:x", "compares passages"))
    (tmp_path / "kl.toml").write_text('loss = "kl"')
    refused(*call, f"hf:{tiny_encoder}", "--recipe", tmp_path / "kl.toml", parts=("loss kl", "give a --judge"))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []  # refused before any work
    refused(*call, f"hf:{tiny_encoder}", "--minutes", "0", parts=("minutes must be above 0",))
    refused(*call, f"hf:{tiny_encoder}", "--with", "nothing", parts=("nothing",))
    refused("adapt", few, "-o", tmp_path / "less", *call[4:], f"hf:{tiny_encoder}", parts=("are needed at least",))
    few = write_collection(tmp_path / "bare", [{"id": f"d{n}", "lang": "eng", "text": f"word {n}"} for n in range(40)])
    refused("adapt", few, "-o", tmp_path / "less", *call[4:], f"hf:{tiny_encoder}", "--with", "ict",
            parts=("gave 0 questions",))  # fmt: skip
    assert not (tmp_path / ".less.partial").exists()  # with more documents it is another call
    refused("adapt", source, "-o", tmp_path / "no" / "out", "--base", f"hf:{tiny_encoder}", parts=("no directory",))


@pytest.mark.parametrize(("right", "verdict"), [(20, "better"), (11, "no different"), (0, "worse")])
def test_a_difference_that_chance_explains_is_none(right, verdict):
    """`right` of 20 queries find their document first after training, and the rest do before."""
    asked = [Item(f"q{n}", "?") for n in range(20)]
    qrels = {query.id: {f"d{n}": 1} for n, query in enumerate(asked)}

    def search(found):
        return Run(asked, {query.id: (Hit(f"d{n}" if found(n) else "x", 1.0),) for n, query in enumerate(asked)})

    runs = {BEFORE: search(lambda n: n >= right), AFTER: search(lambda n: n < right)}
    compared = Compared("it", 20, evaluate(runs, qrels, ("nDCG@20",), baseline=BEFORE, test="randomisation"))
    assert compared.verdict == verdict
    assert verdict in str(compared)


def test_a_document_that_is_held_out_stands_there_as_one_source_has_it(source):
    collection = load_collection(source)
    documents = {item.id: item for item in collection.docs()}
    some = list(documents)[:8]
    made = [
        Made(
            name,
            [Item(f"{id}~1", f"{name} {id}") for id in some],
            {f"{id}~1": {id: 1} for id in some},
            {id: Item(id, f"as {name} has it", lang=documents[id].lang) for id in some},
        )
        for name in ("one", "two")
    ]
    part = hold_out(made, set(some[:6]), "held out", collection, set(documents))
    assert len(part.asked) == 6
    texts = {item.id: item.text for item in part.docs()}
    assert len(texts) == len(documents)
    for query in part.asked:
        (id,) = part.judged[query.id]
        assert texts[id] == f"as {query.text.partition(' ')[0]} has it"
    assert {query.text.partition(" ")[0] for query in part.asked} == {"one", "two"}
    assert part.check().queries == 6
