"""collections/eclektic.py: questions that are judged by the article they came from."""

from __future__ import annotations

from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from stand_ins import small_collections as cases

CASE = "eclektic"


def ids(items) -> list[str]:
    return [item.id for item in items]


def test_eclektic_asks_in_one_language_for_articles_in_their_own(root):
    collection = load_collection(f"eclektic:{root}?lang=zho&sample=true")
    assert (collection.name, len(collection.langs)) == ("eclektic-zh", 12)
    assert list(collection.docs()) == [
        Item("33", "AFN Bremerhaven\nA radio station.", None, "eng",
             {"title": "AFN Bremerhaven", "url": "https://en/33"}),
        Item("34", "Prasasti\nSebuah prasasti.", None, "ind", {"title": "Prasasti", "url": "https://id/34"}),
    ]  # fmt: skip
    assert [(q.id, q.text, q.lang, q.meta) for q in collection.queries()][1] == (
        "34", "Prasasti? (zh)", "zho", {"original_lang": "ind"},
    )  # fmt: skip
    assert collection.qrels() == {"33": {"33": 1}, "34": {"34": 1}, "35": {"33": 1}}
    counts = collection.check()
    assert (counts.documents, counts.queries, counts.langs) == (2, 3, {"eng": 1, "ind": 1})


def test_eclektic_without_a_language_asks_in_the_articles_own(root):
    collection = load_collection(f"eclektic:{root}")
    assert [(q.text, q.lang) for q in collection.queries()] == [
        ("AFN Bremerhaven? (en)", "eng"), ("Prasasti? (id)", "ind"), ("another one?", "eng"),
    ]  # fmt: skip
    assert next(q.text for q in collection.queries(lang="he")) == "AFN Bremerhaven? (he)"
    assert collection.queries()[1].lang == "ind"


def test_what_is_wrong_with_eclektic_is_said(refused, root):
    refused(f"eclektic:{root}", "eclektic has 3 questions", "384 were published", "sample=true")
    refused(f"eclektic:{root}?lang=ru", "unknown language of ECLeKTic 'ru'")
    refused(f"eclektic:{root}", "unknown language of ECLeKTic 'rus'", ask=lambda c: c.queries(lang="rus"))
    cases.put(root / "eclektic_main.jsonl", cases.article(1, "en", "A", "a"), cases.article(2, "en", "B", " "))
    refused(f"eclektic:{root}?sample=true", "eclektic_main.jsonl:2: question '2' has no content")
    row = cases.article(1, "en", "A", "a")
    del row["fr_q"]
    cases.put(root / "eclektic_main.jsonl", row)
    refused(f"eclektic:{root}?lang=fr&sample=true", "eclektic_main.jsonl:1: question '1' has no fr_q")
    (root / "eclektic_main.jsonl").unlink()
    refused(f"eclektic:{root}", "no file eclektic_main.jsonl", "eclektic:DIR")
