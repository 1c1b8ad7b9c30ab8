"""The maker of the collection of package descriptions, offline: sources written in the test."""

from __future__ import annotations

import bz2
import hashlib
from pathlib import Path

import crosslens
import pytest
from crosslens.errors import InputError
from crosslens.runs import read_qrels
from stand_ins.collection_scripts import debian, indexes, same_files, texts


def test_paragraphs_and_lists_are_unwrapped():
    body = [
        " Wrapped text that",
        " goes on.",
        " .",
        " Another. It has:",
        "  * an entry",
        "    of two lines",
        "  * one more",
        "  verbatim",
        "  lines",
        " and text.",
        " - a flush entry",
        "   goes on",
        " .",
        " 这是一个",
        " 编辑器 for",
        " text。",
    ]
    assert texts.paragraphs(body) == [
        "Wrapped text that goes on.",
        "Another. It has:",
        "* an entry of two lines",
        "* one more",
        "verbatim",
        "lines",
        "and text.",
        "- a flush entry goes on",
        "这是一个编辑器 for text。",
    ]


def test_a_translation_file_is_read():
    lines = [
        "Package: one",
        "Description-md5: 0123",
        "Description-pt_BR: Primeira  linha",
        " Texto.",
        " \xa0",
        " Mais.",
        "",
        "",
        "Package: two",
        "Description-md5: 4567",
        "Description-pt_BR: Segunda",
    ]
    assert list(texts.read_descriptions(lines, "Translation-pt_BR")) == [
        texts.Description("0123", "one", "Primeira linha", ("Texto.", "Mais.")),
        texts.Description("4567", "two", "Segunda", ()),
    ]
    with pytest.raises(InputError, match="Translation-da:2: not a line of a Translation file: '<html>'"):
        list(texts.read_descriptions(["Package: one", "<html>"], "Translation-da"))


def described(md5: str, package: str, lang: str, title: str, *paragraphs: str) -> str:
    body = "\n .\n".join(f" {paragraph}" for paragraph in paragraphs)
    return f"Package: {package}\nDescription-md5: {md5}\nDescription-{lang}: {title}\n{body}\n\n"


FILL = {
    "en": "This is program number {}, which is described at enough length here that it says what it is there for.",
    "da": "Dette er program nummer {}, som er beskrevet så udførligt her, at man forstår, hvad det skal bruges til.",
    "zh_CN": "这是第{}号程序，此处的说明足够详细，读者可以明白这个程序究竟是用来做什么事情的。",
}
TITLE = {"en": "Program of kind {}", "da": "Program af slagsen {}", "zh_CN": "第{}类程序", "ru": "Программа вида {}"}


def number(n: int, lang: str, title: str | None = None, *paragraphs: str) -> str:
    word = "".join("abcdefghij"[int(digit)] for digit in f"{n:03}")
    title = TITLE[lang].format(word) if title is None else title
    return described(f"{n:032x}", f"p{n}", lang, title, *(paragraphs or [FILL[lang].format(word)]))


def archive(**files: str) -> indexes.Release:
    """A release whose indexes are in memory: `read` is the real one, and only the download is not."""
    listed, contents = {}, {}
    for locale, text in files.items():
        name = f"main/i18n/Translation-{locale}"
        packed = bz2.compress(text.encode())
        listed[name] = indexes.Index(name, "0" * 64, len(text))
        listed[f"{name}.bz2"] = indexes.Index(f"{name}.bz2", hashlib.sha256(packed).hexdigest(), len(packed))
        contents[f"https://example.org/dists/some/{name}.bz2"] = packed
    release = indexes.Release("some", "Sat, 1 Jan 2022", "https://example.org/dists/some/", False, listed)
    return release, contents


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch):
    english = "".join(number(n, "en") for n in range(40))
    files = {
        # 40 is too short, 41 and 42 share a first line, 43 is a single word, 45 and 46 share a first paragraph.
        "en": english
        + number(40, "en", None, "Too short.")
        + number(41, "en", "Shared by two")
        + number(42, "en", "shared by two!")
        + number(43, "en", "Single")
        + number(44, "en", None, FILL["en"].format("x"), "An English remark stays at the end.")
        + number(45, "en", None, FILL["en"].format("shared"))
        + number(46, "en", None, FILL["en"].format("shared")),
        # 30: title in English; 31: text in English; 32: twice; 33: absent; 34: the words of 32; 99: no English text.
        "da": "".join(number(n, "da") for n in range(30))
        + number(30, "da", TITLE["en"].format("ada"))
        + number(31, "da", None, FILL["en"].format("adb"))
        + number(32, "da")
        + number(32, "da", "En anden titel til den samme")
        + number(34, "da", TITLE["da"].format("adc"), FILL["da"].format("adc"))
        + number(99, "da")
        + "".join(number(n, "da") for n in (40, 41, 42, 43))
        + number(44, "da", None, FILL["da"].format("x"), "An English remark stays at the end."),
        "zh_CN": "".join(number(n, "zh_CN") for n in range(0, 40, 2)),
        "zh": number(1, "zh_CN"),
    }
    found, contents = archive(**files)
    asked = []

    def fetch(command: list[str], folder: Path | None = None) -> str:
        uri, path, _ = command[-3:]
        asked.append(uri)
        Path(path).write_bytes(contents[uri])
        return ""

    monkeypatch.setattr(indexes, "output", fetch)
    monkeypatch.setattr(debian, "LEAST_FILE", 1)
    monkeypatch.setattr(debian, "release", lambda codename: found)
    return found, contents, asked


def test_descriptions_are_aligned_and_split(tmp_path: Path, release):
    card = debian.build(tmp_path / "all", "dan,zho", "title", None, None)
    whole = crosslens.collection(tmp_path / "all")
    counts = whole.check()
    assert counts.langs == {"dan": 35, "zho": 20} == card["documents"]
    assert card["documents left out"]["dan"] == {
        "first line not translated": 1,
        "near-empty": 1,
        "no current English text": 1,
        "text not translated": 1,
        "the same description of another package": 1,
        "the same words as another description": 1,
    }
    assert card["English paragraphs removed"] == {"dan": 1, "zho": 0}
    assert card["topics left out"] == {"first line of one word": 1, "several descriptions have the first line": 2}
    docs = {doc.id: doc for doc in whole.docs()}
    assert docs["dan/p44-000000000000"].text.endswith(FILL["da"].format("x"))
    asked = {query.id: query for query in whole.queries()}
    for id, grades in whole.qrels().items():
        assert grades
        assert all(doc.partition("/")[2] == id and grade == 3 for doc, grade in grades.items())
        word = asked[id].text.removeprefix("Program of kind ")
        assert any(word in docs[doc].text for doc in grades), id
    assert "zho/p2-000000000000" in whole.qrels()["p2-000000000000"]
    assert read_qrels(tmp_path / "all" / "qrels.txt")[1]["zho/p2-000000000000"] == "zho"
    ids = []
    for half in ("dev", "test"):
        part = crosslens.collection(tmp_path / "all" / half)
        assert part.check().documents == 55
        ids += [query.id for query in part.queries()]
        assert part.qrels() == {id: whole.qrels()[id] for id in part.qrels()}
        assert card[half]["topics"] == len(list(part.queries()))
    assert sorted(ids) == sorted(asked)
    debian.build(tmp_path / "again", "dan,zho", "title", None, None)
    assert same_files(tmp_path / "all", tmp_path / "again") == 11


def test_english_originals_are_documents_if_asked_for(tmp_path: Path, release):
    card = debian.build(tmp_path / "all", "eng,dan", "title+paragraph", 5, None)
    assert card["documents"] == {"dan": 35, "eng": 46}
    whole = crosslens.collection(tmp_path / "all")
    whole.check()
    assert all({doc[:3] for doc in grades} == {"dan", "eng"} for grades in whole.qrels().values())
    assert 5 < len(list(whole.queries())) <= 10
    query = next(iter(whole.queries()))
    assert query.text.startswith("Program of kind ")
    assert "\nThis is program number" in query.text
    with pytest.raises(InputError, match="a language other than English"):
        debian.build(tmp_path / "none", "eng", "title", 5, None)
    with pytest.raises(InputError, match=r"Debian some has no descriptions in Russian \(it has dan, eng, zho\)"):
        debian.build(tmp_path / "none", "rus", "title", 5, None)
    assert [path.name for path in tmp_path.iterdir()] == ["all"]


def test_an_index_with_another_checksum_is_refused(tmp_path: Path, release):
    _, contents, asked = release
    contents["https://example.org/dists/some/main/i18n/Translation-da.bz2"] = bz2.compress(b"something else")
    with pytest.raises(InputError, match="Translation-da.bz2 of some has another SHA256"):
        debian.build(tmp_path / "all", "dan", "title", None, None)
    assert len(asked) == 2
    assert list(tmp_path.iterdir()) == []


RELEASE = """Origin: Debian
Codename: some
Date: Sat, 11 Jul 2026 10:16:37 UTC
MD5Sum:
 00 5 main/i18n/Translation-da.bz2
SHA256:
 {0} 99 main/i18n/Translation-da
 {1} 5 main/i18n/Translation-da.bz2
 {1} 4 main/i18n/Translation-da.xz
 {1} 3 main/i18n/Translation-da.lzma
"""


def test_a_release_is_found_where_apt_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = {
        "CODENAME": "some",
        "BASE_URI": "https://example.org/dists/some/",
        "METAKEY": "main/binary-amd64/Packages",
        "FILENAME": f"{tmp_path}/example.org_dists_some_main_binary-amd64_Packages.lz4",
        "BY_HASH": "yes",
        "TRUSTED": "yes",
    }
    monkeypatch.setattr(indexes, "output", lambda command: "\t".join(target[field] for field in indexes.FIELDS) + "\n")
    with pytest.raises(InputError, match="no Release file of some here"):
        indexes.release("some")
    (tmp_path / "example.org_dists_some_InRelease").write_text(RELEASE.format("a" * 64, "b" * 64))
    found = indexes.release("some")
    assert (found.codename, found.date, found.base) == ("some", "Sat, 11 Jul 2026 10:16:37 UTC", target["BASE_URI"])
    smallest = found.packed("main/i18n/Translation-da")
    assert smallest == indexes.Index("main/i18n/Translation-da.xz", "b" * 64, 4)
    assert found.packed("main/i18n/Translation-de") is None

    asked = []
    monkeypatch.setattr(indexes, "output", lambda command: asked.append(command) or "")
    (tmp_path / "Translation-da.xz").write_bytes(b"")
    with pytest.raises(InputError, match="another SHA256"):
        found.read(smallest, tmp_path)
    assert asked[0][-3:] == [
        f"https://example.org/dists/some/main/i18n/by-hash/SHA256/{'b' * 64}",
        str(tmp_path / "Translation-da.xz"),
        f"SHA256:{'b' * 64}",
    ]

    target["TRUSTED"] = "no"
    monkeypatch.setattr(indexes, "output", lambda command: "\t".join(target[field] for field in indexes.FIELDS) + "\n")
    with pytest.raises(InputError, match="does not trust"):
        indexes.release("some")
    with pytest.raises(InputError, match=r"no lists of the release 'other' \(it has some\)"):
        indexes.release("other")
