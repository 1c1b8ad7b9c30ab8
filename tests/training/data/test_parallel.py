"""Cross-lingual recipes: which languages documents come to be in, what becomes of scores, and of what has no translation."""

from __future__ import annotations

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from crosslens.training.data.base import Making
from crosslens.training.data.example import Example
from crosslens.training.data.parallel import RECIPES, LanguageRecipe, ParallelDocuments
from stand_ins.small_collections import put
from stand_ins.table import table

NAMES = [f"page{n}" for n in range(6)]
LANGS = ("eng", "rus", "zho")


def page(name, lang, **more):
    return {"id": f"{lang}/{name}", "text": f"{name} in {lang}", "lang": lang, **more}


@pytest.fixture
def pages(tmp_path):
    """All pages in English and Russian, page5 not in Chinese; a key that says which belong together."""
    rows = [page(name, lang, about=name) for name in NAMES for lang in LANGS if (name, lang) != ("page5", "zho")]
    put(tmp_path / "pages/docs.jsonl", *rows)
    return load_collection(tmp_path / "pages")


def example(query, positives, negatives, scored=True):
    def items(names):
        return tuple(Item(f"eng/{name}", f"{name} in eng", lang="eng") for name in names)

    scores = tuple(float(name[-1]) for name in (*positives, *negatives)) if scored else ()
    return Example(Item(query, "what", lang="eng"), items(positives), items(negatives), scores)


EXAMPLES = [example("q0", ["page0", "page1"], ["page2", "page5"]), example("q1", ["page5"], ["page3", "page4"])]


def convert(pages, spec, by="id", examples=EXAMPLES):
    recipe, making = LanguageRecipe.parse(spec), Making(seed=1)
    parallel = ParallelDocuments.read([pages], by, examples, recipe.to)
    made = list(recipe.apply(examples, parallel, making))
    return made, +making.count


def list_ids(made):
    return [([each.id for each in one.positives], [each.id for each in one.negatives], one.scores) for one in made]


@pytest.mark.parametrize("by", ["id", "about"])
def test_documents_are_in_the_other_language_and_queries_as_they_were(pages, by):
    made, count = convert(pages, "translate-train?to=Russian", by)
    assert list_ids(made) == [
        (["rus/page0", "rus/page1"], ["rus/page2", "rus/page5"], ()),
        (["rus/page5"], ["rus/page3", "rus/page4"], ()),
    ]
    assert [one.query for one in made] == [one.query for one in EXAMPLES]
    assert made[0].positives[0].text == "page0 in rus"
    assert not count


def test_a_student_keeps_the_scores_of_what_the_teacher_saw(pages):
    made, count = convert(pages, "translate-distill?to=zho")
    assert list_ids(made) == [(["zho/page0", "zho/page1"], ["zho/page2"], (0.0, 1.0, 2.0))]
    assert count == {"without_translation": 1, "documents_without_translation": 1}
    with pytest.raises(InputError, match="'q9' has no scores, from which translate-distill learns: add --score"):
        convert(pages, "translate-distill?to=zho", examples=[example("q9", ["page1"], [], scored=False)])


def test_passages_are_mixed_within_an_example_entries_between_them_and_round_robin_gives_each(pages):
    many = [example(f"q{n}", ["page0", "page1"], ["page2", "page3", "page4"]) for n in range(60)]
    mixed, _ = convert(pages, "mtt?to=rus,zho", examples=many)
    counts = [sum(each.lang == "rus" for each in one.documents) for one in mixed]
    assert len(set(counts)) > 2
    assert 120 < sum(counts) < 180
    entries, _ = convert(pages, "mtd?to=rus,zho&mix=entries", examples=many)
    langs = [{each.lang for each in one.documents} for one in entries]
    assert all(len(each) == 1 for each in langs)
    assert 15 < langs.count({"rus"}) < 45
    assert all(one.scores == many[0].scores for one in entries)
    turns, count = convert(pages, "mtd?to=eng,zho&mix=round-robin")
    assert [ids[0] for ids in list_ids(turns)] == [
        ["eng/page0", "eng/page1"],
        ["zho/page0", "zho/page1"],
        ["eng/page5"],
    ]
    assert count == {"documents_without_translation": 1}
    again, _ = convert(pages, "mtt?to=rus,zho", examples=list(reversed(many)))
    assert list_ids(reversed(again)) == list_ids(mixed)


def test_what_lacks_one_language_is_taken_in_another(pages):
    few = [example(f"q{n}", ["page5"], ["page1"]) for n in range(20)]
    for mix in ("passages", "entries"):
        made, count = convert(pages, f"mtt?to=rus,zho&mix={mix}", examples=few)
        assert [one.positives[0].id for one in made] == ["rus/page5"] * 20
        assert not count


def test_the_same_ids_in_another_collection_and_what_is_the_same_in_another_language(tmp_path):
    put(tmp_path / "rus/docs.jsonl", *({"id": name, "text": f"{name} по-русски", "lang": "rus"} for name in NAMES))
    english = [Item(name, name, lang="eng") for name in NAMES]
    one = Example(Item("q", "x"), (english[0],), (english[1],))
    (made,), _ = convert(load_collection(tmp_path / "rus"), "translate-train?to=rus", "", [one])
    assert [each.text for each in made.documents] == ["page0 по-русски", "page1 по-русски"]
    # A negative that is a translation of the positive is the positive, in one language.
    pair = Example(
        Item("q", "x"),
        (Item("eng/page0", "a", lang="eng"),),
        (Item("rus/page0", "b", lang="rus"), Item("eng/page1", "c", lang="eng")),
    )
    put(tmp_path / "pages/docs.jsonl", *(page(name, lang) for name in NAMES for lang in LANGS))
    (made,), _ = convert(load_collection(tmp_path / "pages"), "translate-train?to=rus", "id", [pair])
    assert [each.id for each in made.documents] == ["rus/page0", "rus/page1"]


@table(
    ("spec", "error"),
    [
        ("translate-trian?to=rus", "unknown recipe for languages 'translate-trian'; did you mean translate-train"),
        ("translate-train", "does not say in which language: translate-train"),
        ("translate-train?to=rus,zho", "is for one language, and .* has 2: see mtt"),
        ("mtd?to=rus", "is for two languages or more, and .* has 1: see translate-distill"),
        ("translate-train?to=rus&mix=entries", "with one language there is nothing to mix"),
        ("mtt?to=rus,zho&mix=batches", "mix"),
        ("translate-train?to=zz9", "unknown language"),
        ("translate-train?to=deu", "no document of the examples has a translation in deu .by=id. in pages"),
    ],
)
def test_a_mistake_is_said(pages, spec, error):
    with pytest.raises(InputError, match=error):
        convert(pages, spec)


def test_each_recipe_names_its_paper():
    assert all("arXiv:" in paper for paper, _, _ in RECIPES.values())
