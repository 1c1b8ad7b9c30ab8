"""The built-in collection `demo` is complete, consistent and judged as it says."""

import dataclasses
import re
import subprocess
import sys
import unicodedata
from collections import Counter

import pytest
from crosslens.demo.collection import COUNTS, Demo, Photo, list_photos
from crosslens.errors import InputError

KINDS = {"text to text": 24, "text to photo": 16, "photo to text": 12, "text + photo": 12}
REQUIRED = {"eng", "zho", "fas", "rus", "ara", "hin", "spa", "deu", "jpn", "swa"}
# The Unicode name prefix that most letters of a text in the language have.
SCRIPTS = {
    "zho": ("CJK",), "jpn": ("CJK", "HIRAGANA", "KATAKANA"), "kor": ("HANGUL",), "tha": ("THAI",),
    "hin": ("DEVANAGARI",), "rus": ("CYRILLIC",), "fas": ("ARABIC",), "ara": ("ARABIC",),
    **dict.fromkeys(("eng", "spa", "deu", "swa", "fra", "tur"), ("LATIN",)),
}  # fmt: skip
# Letters that the one language writes and its neighbour in the same script does not.
ONLY = {"fas": "پچژگکی", "ara": "كيىة"}

DEMO = Demo()
DOCS = list(DEMO.docs())
QUERIES = DEMO.queries()
QRELS = DEMO.qrels()
TEXTS = [d for d in DOCS if d.text]
BY_ID = {d.id: d for d in DOCS}


def in_script(text: str, lang: str) -> bool:
    """Whether at least 80% of the letters are of the language's script."""
    letters = [c for c in text if c.isalpha()]
    right = sum(unicodedata.name(c).startswith(SCRIPTS[lang]) for c in letters)
    return bool(letters) and right >= 0.8 * len(letters)


def test_check_passes_and_counts_hold():
    DEMO.check()
    assert len(TEXTS) == COUNTS["texts"] >= 100
    assert len(DOCS) - len(TEXTS) == len(list_photos()) == COUNTS["photos"] >= 20
    assert len(QUERIES) == COUNTS["queries"] >= 72


def test_languages():
    held = Counter(d.lang for d in TEXTS)
    assert set(held) == DEMO.langs == set(SCRIPTS)
    assert held.keys() >= REQUIRED
    assert len(held) >= 12
    assert min(held.values()) >= 6
    for kind in ("text to text", "text to photo"):
        assert len({q.lang for q in QUERIES if q.meta["kind"] == kind}) >= 10


def test_ids_and_texts_are_unique():
    assert len(BY_ID) == len(DOCS)
    assert len({q.id for q in QUERIES}) == len(QUERIES)
    assert len({d.text for d in TEXTS}) == len(TEXTS)
    assert len({(q.text, q.meta.get("photo")) for q in QUERIES}) == len(QUERIES)


def test_documents_have_the_promised_shape():
    for d in TEXTS:
        assert re.fullmatch(r"t-[a-z]+-[a-z]{3}-\d+", d.id)
        assert d.id.split("-")[2] == d.lang
        assert d.text is not None
        assert d.text.startswith(f"{d.meta['title']}\n")
        assert d.text == unicodedata.normalize("NFC", d.text), d.id
        if d.lang not in {"zho", "jpn", "tha"}:  # these put no spaces between words
            assert 30 <= len(d.text.split("\n")[1].split()) <= 90, d.id
    for d in DOCS[len(TEXTS) :]:
        assert d.text is None
        assert d.lang is None
        assert {"shows", "licence", "source"} <= d.meta.keys()


def test_every_subject_mixes_languages():
    subjects: dict[str, list[str | None]] = {}
    for d in TEXTS:
        subjects.setdefault(d.id.split("-")[1], []).append(d.lang)
    assert len(subjects) >= 14
    for subject, langs in subjects.items():
        assert 6 <= len(langs) == len(set(langs)), subject


def test_script_matches_language():
    for item in (each for each in TEXTS + QUERIES if each.text):
        assert in_script(item.text, item.lang), item.id
        if item.lang in ONLY:
            other = "".join(v for k, v in ONLY.items() if k != item.lang)
            assert not set(item.text) & set(other), item.id


def test_kinds_are_complete_and_hold_what_they_say():
    assert {q.meta["kind"] for q in QUERIES} == set(KINDS)
    for kind, least in KINDS.items():
        mine = [q for q in QUERIES if q.meta["kind"] == kind]
        assert len(mine) >= least
        for q in mine:
            assert (q.text is not None) == (kind != "photo to text") == (q.lang is not None)
            assert (q.image is not None) == (kind in {"photo to text", "text + photo"}) == ("photo" in q.meta)


def test_qrels_name_known_topics_and_documents():
    assert QRELS.keys() == {q.id for q in QUERIES}
    for judged in QRELS.values():
        assert judged.keys() <= BY_ID.keys()
        assert set(judged.values()) <= {1, 3}
        assert 3 in judged.values()


def test_best_documents_suit_the_kind():
    for q in QUERIES:
        best = [BY_ID[d] for d, grade in QRELS[q.id].items() if grade == 3]
        kind = q.meta["kind"]
        if kind == "text to text":
            assert all(d.text and d.lang != q.lang for d in best), q.id
        elif kind == "text to photo":
            assert all(d.image for d in best), q.id
        elif kind == "photo to text":
            assert all(d.text for d in best), q.id
        assert q.meta.get("photo") not in QRELS[q.id], q.id


def test_photos_say_their_licence_and_are_found_without_importing_their_packages():
    assert list_photos() is list_photos()
    assert all(p.licence and p.source and p.shows and p.stated_in for p in list_photos())
    code = (
        "import sys; from crosslens.demo.collection import Demo; list(Demo().docs()); "
        "sys.exit(any(m in sys.modules for m in ('skimage', 'sklearn', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"package": "no_such_package_here"}, "of a package no_such_package_here"),
        ({"file": "data/no_such_file.png"}, "no file"),
        ({"sha256": "0" * 64}, "another picture"),
    ],
)
def test_bad_photo_is_one_clear_line(change, said, monkeypatch):
    bad: Photo = dataclasses.replace(list_photos()[0], **change)
    monkeypatch.setattr("crosslens.demo.collection.list_photos", lambda: (bad, *list_photos()[1:]))
    with pytest.raises(InputError, match=said) as caught:
        Demo().check()
    line = str(caught.value)
    assert bad.id in line
    assert "pip install 'crosslens[offline]'" in line
    assert "\n" not in line
