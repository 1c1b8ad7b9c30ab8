"""Sources without a language model: what becomes of a document, and what is its query."""

from __future__ import annotations

import numpy as np
import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.training.data.anchors import read_links
from crosslens.training.data.base import Making
from crosslens.training.data.registry import load_source
from crosslens.training.data.translations import mine_by_margin
from hypothesis import given
from hypothesis import strategies as st

BODY = (
    "Adult cats sleep for sixteen hours a day. They hunt in short and fast sprints. So they rest for most of the day."
)


def make(spec, *documents, making=None, chosen=None):
    wanted = {each.id for each in documents} if chosen is None else chosen
    made = list(load_source(spec).make(lambda: iter(documents), wanted, making or Making()))
    return {document.id: (document, drafts) for document, drafts in made}


def titled(id, title, text, lang="eng", **meta):
    return Item(id, f"{title}\n{text}" if title else text, lang=lang, meta={"title": title, **meta} if title else meta)


def test_ict_takes_sentences_out_of_their_document():
    document, drafts = make("ict?n=2&keep=0", titled("d", "Cats", BODY))["d"]
    assert len(drafts) == 2
    for draft in drafts:
        assert draft.text in BODY
        assert draft.text not in document.text
        assert (draft.lang, draft.style) == ("eng", "sentence")
    assert document.text.startswith("Cats\n")
    assert document.text.count(".") == 1


def test_ict_keeps_a_share_and_never_empties_a_document():
    documents = [titled(f"d{n}", "", BODY) for n in range(300)]
    stays = [drafts[0].text in document.text for document, drafts in make("ict?keep=0.3", *documents).values()]
    assert 0.2 < np.mean(stays) < 0.4
    one = Item("one", "There is one sentence here alone.", lang="eng")
    assert make("ict", one)["one"] == (one, [])
    document, drafts = make("ict?n=3&keep=0", titled("d", "", BODY.replace(". ", ".\n\n")))["d"]
    assert (len(drafts), document.text.count(".")) == (2, 1)


def test_titles_are_queries_for_the_text_below_and_else_the_first_sentence():
    made = make("titles", titled("a", "Cats", BODY, url="x"), titled("b", "", BODY), Item("c", "One line.", lang="eng"))
    document, (draft,) = made["a"]
    assert (draft.text, document.text, dict(document.meta)) == ("Cats", BODY, {"url": "x"})
    document, (draft,) = made["b"]
    assert (draft.text, draft.style) == ("Adult cats sleep for sixteen hours a day.", "first sentence")
    assert document.text == BODY.partition("day. ")[2]
    assert made["c"][1] == []


def test_links_are_read_from_markdown_html_and_metadata():
    text = 'See [the **night** train](b.md "T") and <a class=x href="/c#top">a <b>blue</b> &amp; red one</a> ![p](p.png) [x](<d>)'
    document = Item("a", text, meta={"links": [{"text": "meta", "target": "e"}, {"text": 3}, "x"]})
    found = sorted(read_links(document))
    assert found == [("a blue & red one", "/c#top"), ("meta", "e"), ("the **night** train", "b.md"), ("x", "d")]


def test_anchors_lead_to_documents_by_id_or_url_and_generic_ones_are_left_out():
    making = Making()
    documents = [
        Item("guide/a", "[cats](b.html), [cats](guide/b), [here](c), [self](a)", lang="eng", meta={"url": "https://x.org/guide/a"}),
        Item("guide/b", "Cats. [here](https://x.org/guide/a) [ici](#top)", lang="eng", meta={"url": "https://x.org/g/b"}),
        Item("guide/c", "[les chats](../guide/b#sleep) [kittens](https://x.org/g/b/) [here](b)", lang="fra"),
        Item("guide/d", "No link leads here.", lang="eng"),
    ]  # fmt: skip
    made = make("anchors?n=2", *documents, making=making)
    assert [(each.text, each.lang) for each in made["guide/b"][1]] == [("cats", "eng"), ("kittens", "fra")]
    assert [each.text for _, drafts in made.values() for each in drafts if each.text == "here"] == []
    assert making.count == {"generic_anchors": 1}
    assert made["guide/d"][1] == []
    (_, drafts) = make("anchors", *documents, chosen={"guide/c"})["guide/c"]  # "here" is generic in any sample
    assert drafts == []


def test_translations_are_aligned_by_id_or_a_key():
    documents = [
        titled("rus/guide/x", "Кошки", "Текст.", "rus", page=1),
        titled("zh-CN/guide/x", "猫", "文字。", "zho", page=1),
        titled("en/guide/x", "Cats", "Text.", "eng", page=2),
        titled("en/guide/y", "Dogs", "Text.", "eng", page=3),
        titled("plain", "None", "Text.", "eng"),
    ]
    by_id = make("translations?by=id", *documents, chosen={"rus/guide/x", "en/guide/y"})
    assert [(each.text, each.lang) for each in by_id["rus/guide/x"][1]] == [("猫", "zho"), ("Cats", "eng")]
    assert by_id["en/guide/y"][1] == []
    assert by_id.keys() == {"rus/guide/x", "en/guide/y"}
    by_page = make("translations?by=page", *documents)
    assert [each.text for each in by_page["zh-CN/guide/x"][1]] == ["Кошки"]
    assert by_page["en/guide/x"][1] == by_page["plain"][1] == []
    with pytest.raises(InputError, match=r"no document has a translation \(by=pages\)"):
        make("translations?by=pages", *documents)


class Concepts:
    """A space in which a text lies where its last word says, whatever its language."""

    def __init__(self):
        from crosslens import EncoderSpec

        self.spec = EncoderSpec("concepts", "1", ("text",), 16)

    def encode(self, items, role):
        from crosslens import Dense

        for item in items:
            vector = np.full((1, 16), 0.2, np.float32)
            vector[0, int(item.text.partition("\n")[0].split()[-1]) % 16] += 1
            yield Dense([item.id], vector / np.linalg.norm(vector))


def test_translations_are_mined_by_vectors():
    documents = [
        titled(f"{lang}{n}", f"{lang} number {n}", "Text.", lang) for lang in ("eng", "rus") for n in range(12)
    ]
    documents += [titled("eng99", "eng number 14", "Text.", "eng")]
    making = Making()
    made = make(f"translations?by=vectors&encoder=py:{__name__}:Concepts&margin=1.5", *documents, making=making)
    for n in range(12):
        assert [(each.text, each.lang) for each in made[f"eng{n}"][1]] == [(f"rus number {n}", "rus")]
    assert made["eng99"][1] == []
    assert making.count == {"mined_pairs": 12}


@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 30), st.integers(1, 5))
def test_margins_are_those_of_the_paper(seed, many, others, k):
    random = np.random.default_rng(seed)
    one, other = random.standard_normal((many, 8)), random.standard_normal((others, 8))
    one, other = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (one + 2, other + 2))
    cosines = one @ other.T
    forward = np.sort(cosines, axis=1)[:, -k:].mean(axis=1)
    backward = np.sort(cosines, axis=0)[-k:].mean(axis=0)
    margins = cosines / ((forward[:, None] + backward[None]) / 2)
    pairs = mine_by_margin(one, other, k)
    assert [margin for *_, margin in pairs] == sorted((margin for *_, margin in pairs), reverse=True)
    assert len({row for row, *_ in pairs}) == len({column for _, column, _ in pairs}) == len(pairs)
    for row, column, margin in pairs:
        assert margin == pytest.approx(margins[row, column])
    assert 1 <= len(pairs) <= min(many, others)
