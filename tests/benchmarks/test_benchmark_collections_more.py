"""The makers of the collections of stamps, emoji and package descriptions, offline: sources written in the test."""

import base64
import bz2
import hashlib
import importlib
import io
import json
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from types import ModuleType

import crosslens
import pytest
from crosslens.errors import InputError
from crosslens.runs import read_qrels
from PIL import Image

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "collections"


def module(name: str) -> ModuleType:
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))


locales, cards, directory, pictures = map(module, ("locales", "cards", "directory", "pictures"))
indexes, texts, npm = map(module, ("apt_indexes", "descriptions", "npm_packages"))
debian, emoji, stamps = map(module, ("debian_descriptions", "emoji", "tuxpaint_stamps"))


def png(number: int, alpha: bool = True, compress: int = 6) -> bytes:
    """A picture whose pixels depend on the number alone."""
    image = Image.new("RGBA" if alpha else "RGB", (4, 3), (number % 256, number // 256, 7, 255)[: 3 + alpha])
    image.save(out := io.BytesIO(), "PNG", compress_level=compress)
    return out.getvalue()


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def same_files(one: Path, other: Path) -> int:
    """How many files two directories have, all with the same bytes."""
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    for file in files:
        assert (one / file).read_bytes() == (other / file).read_bytes(), file
    return len(files)


# Which locale is a language's.


@pytest.mark.parametrize(
    ("langs", "found"),
    [
        ("zho,pt", {"por": "pt", "zho": "zh_CN"}),
        ("zh-TW, pt_br", {"por": "pt_BR", "zho": "zh_TW"}),
        ("sr@latin", {"srp": "sr@latin"}),
        ("Serbian,eng", {"eng": "en", "srp": "sr"}),
        ("all", {"eng": "en", "por": "pt", "srp": "sr", "zho": "zh_CN"}),
    ],
)
def test_a_language_has_its_usual_locale(langs: str, found: dict[str, str]):
    sizes = {"en": 9, "en_AU": 9, "pt": 5, "pt_BR": 9, "sr": 8, "sr@latin": 9, "xx": 9}
    sizes |= {"zh": 1, "zh_CN": 9, "zh_TW": 9}
    assert locales.chosen(langs, sizes, "There are no texts") == found


def test_a_locale_with_twice_the_texts_is_preferred():
    assert locales.chosen("por", {"pt": 5, "pt_BR": 11}, "") == {"por": "pt_BR"}


@pytest.mark.parametrize(
    ("langs", "complaint"),
    [
        ("rus,fas", r"There are no texts in Persian \(it has rus, zho\)"),
        ("zh-tw,zho", "zh_TW and zh_CN are both zho"),
        ("qqqq", "unknown language"),
        (" , ", "no languages"),
        ("rus,@", "unknown language ''"),
    ],
)
def test_languages_that_cannot_be_had(langs: str, complaint: str):
    with pytest.raises(InputError, match=complaint):
        locales.chosen(langs, {"ru": 1, "zh_CN": 1, "zh_TW": 1}, "There are no texts")


# Halves and samples.


def test_what_belongs_together_shares_a_half():
    assert pictures.together({"d": ["x"], "a": ["y"], "b": ["x", "y"], "c": ["z"]}) == {
        "a": "a",
        "b": "a",
        "c": "c",
        "d": "a",
    }
    topics = [
        directory.Topic({"id": f"{lang}/{n}"}, [], split_by=str(n)) for n in range(60) for lang in "abc"
    ]
    halves = {n: {topic.half for topic in topics if topic.split_by == str(n)} for n in range(60)}
    assert all(len(half) == 1 for half in halves.values())
    assert set().union(*halves.values()) == {"dev", "test"}
    assert directory.Topic({"id": "7"}, []).half == directory.half_of("7")


def test_a_sample_has_topics_of_every_language():
    judgement = directory.Judgement
    many = [
        directory.Topic(
            {"id": f"t{n}", "lang": "eng"},
            [judgement(f"dan/{n}", "dan", 3)] + ([judgement(f"zho/{n}", "zho", 3)] if n % 20 == 0 else []),
        )
        for n in range(400)
    ]
    small, large = (cards.sampled_by_language(many, most) for most in (4, 10))
    assert {topic.id for topic in small} < {topic.id for topic in large}
    for half in ("dev", "test"):
        of_half = [topic for topic in small if topic.half == half]
        held = Counter(lang for topic in of_half for lang in cards.langs_of(topic))
        assert held["zho"] == 4
        assert 4 <= held["dan"] <= 8
    assert cards.sampled_by_language(many, None) == sorted(many, key=lambda topic: topic.id)
    counts = cards.counted(small)
    assert counts["all"]["topics"] == len(small) == counts["dev"]["topics"] + counts["test"]["topics"]
    assert counts["all"]["by language"]["zho"] == {"topics": 8, "judgements": 8}
    picture = directory.Topic({"id": "p", "lang": "fra"}, [judgement("x", cards.NO_LANGUAGE, 3)] * 2)
    assert cards.counted([picture])["all"]["by language"] == {"fra": {"topics": 1, "judgements": 2}}


def test_pictures_are_the_same_by_their_pixels_not_their_bytes():
    assert png(1, compress=0) != png(1, alpha=False)
    assert pictures.pixels(png(1, compress=0), "a") == pictures.pixels(png(1, alpha=False), "b")
    assert pictures.pixels(png(1), "a") != pictures.pixels(png(2), "b")


# Descriptions of packages.


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
TITLE = {
    "en": "Program of kind {}",
    "da": "Program af slagsen {}",
    "zh_CN": "第{}类程序",
    "ru": "Программа вида {}",
}


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
    assert card["topics left out"] == {
        "first line of one word": 1,
        "several descriptions have the first line": 2,
    }
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
    with pytest.raises(
        InputError, match=r"Debian some has no descriptions in Russian \(it has dan, eng, zho\)"
    ):
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
    monkeypatch.setattr(
        indexes, "output", lambda command: "\t".join(target[field] for field in indexes.FIELDS) + "\n"
    )
    with pytest.raises(InputError, match="no Release file of some here"):
        indexes.release("some")
    (tmp_path / "example.org_dists_some_InRelease").write_text(RELEASE.format("a" * 64, "b" * 64))
    found = indexes.release("some")
    assert (found.codename, found.date, found.base) == (
        "some",
        "Sat, 11 Jul 2026 10:16:37 UTC",
        target["BASE_URI"],
    )
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
    monkeypatch.setattr(
        indexes, "output", lambda command: "\t".join(target[field] for field in indexes.FIELDS) + "\n"
    )
    with pytest.raises(InputError, match="does not trust"):
        indexes.release("some")
    with pytest.raises(InputError, match=r"no lists of the release 'other' \(it has some\)"):
        indexes.release("other")


# Packages of npm.


def packed(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as out:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            out.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            out.addfile(entry)
    return path


def test_only_regular_files_with_the_whole_name_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = packed(
        tmp_path / "p.tgz",
        {
            "package/a.json": b"1",
            "package/a.json.bak": b"2",
            "../package/a.json": b"3",
            "package/b.json": b"4",
        },
        {"package/c.json": "/etc/passwd"},
    )
    assert list(npm.files(path, r"package/\w\.json")) == [("package/a.json", b"1"), ("package/b.json", b"4")]
    assert [file.name for file in tmp_path.iterdir()] == ["p.tgz"]
    monkeypatch.setattr(npm, "MOST_BYTES", 0)
    with pytest.raises(InputError, match=r"p\.tgz: package/a\.json has 1 bytes"):
        list(npm.files(path, r"package/\w\.json"))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=r"p\.tgz: not a whole npm package"):
        list(npm.files(path, ".*"))


def test_an_archive_is_checked_against_its_sha512(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def run(command: list[str], cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        if command[-1] == "gone@1.0.0":
            return subprocess.CompletedProcess(
                command, 1, "", "npm error code E404\nnpm error 404 Not Found\n"
            )
        (cwd / "some-1.0.0.tgz").write_bytes(b"content")
        return subprocess.CompletedProcess(command, 0, '[{"filename": "some-1.0.0.tgz"}]', "")

    monkeypatch.setattr(npm.subprocess, "run", run)
    sha512 = base64.b64encode(hashlib.sha512(b"content").digest()).decode()
    some = npm.Package("some", "1.0.0", f"sha512-{sha512}")
    assert npm.download([some], tmp_path) == {"some": tmp_path / "some-1.0.0.tgz"}
    assert asked[0][:3] == ["npm", "pack", "--ignore-scripts"]
    assert asked[0][-1] == "some@1.0.0"
    with pytest.raises(InputError, match=r"some@1\.0\.0 is not the expected archive"):
        npm.download([npm.Package("some", "1.0.0", "sha512-other")], tmp_path)
    with pytest.raises(InputError, match=r"npm pack gone@1\.0\.0 failed: npm error 404 Not Found"):
        npm.download([npm.Package("gone", "1.0.0", "sha512-other")], tmp_path)


# Emoji.

FACES = {n: chr(0x1F600 + n) for n in range(30)}


def annotations(kind: str, names: dict[str, dict[str, list[str]]]) -> bytes:
    return json.dumps({kind: {"identity": {}, "annotations": names}}, ensure_ascii=False).encode()


@pytest.fixture
def emoji_packages(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("npm")
    listed = [{"unified": f"{0x1F600 + n:X}", "image": f"{0x1F600 + n:x}.png"} for n in FACES]
    listed += [{"unified": "2639-FE0F", "image": "2639-fe0f.png"}, {"unified": "1F9FF", "image": "1f9ff.png"}]
    files = {"package/emoji.json": json.dumps([{**one, "has_img_google": True} for one in listed]).encode()}
    for n in FACES:
        # 3 looks like 2 in other bytes.
        files[f"package/img/google/64/{0x1F600 + n:x}.png"] = png(2, alpha=False) if n == 3 else png(n)
    files |= {f"package/img/google/64/{name}.png": png(900 + len(name)) for name in ("2639-fe0f", "1f9ff")}
    files["package/img/google/sheets/64.png"] = b"never read"
    pictures = packed(folder / "pictures.tgz", files)

    def called(template: str) -> dict[str, dict[str, list[str]]]:
        # 5 has the name of 4.
        return {
            face: {"default": ["face", f"k{n}"], "tts": [template.format(4 if n == 5 else n)]}
            for n, face in FACES.items()
        }

    english, russian = called("face number {}"), called("лицо номер {}")
    russian[FACES[6]] = {"default": ["лицо"], "tts": ["face number 6"]}
    russian[FACES[7]] = {"tts": ["без слов"]}
    del russian[FACES[8]]
    main = {
        "package/annotations/en/annotations.json": annotations("annotations", english),
        "package/annotations/en-AU/annotations.json": annotations(
            "annotations", {FACES[0]: english[FACES[0]]}
        ),
        "package/annotations/ru/annotations.json": annotations("annotations", russian),
        "package/annotations/sr-Cyrl/annotations.json": b'{"annotations": {"identity": {"language": "sr"}}}',
        "package/annotations/fr/annotations.json": annotations("annotations", {"x": {"tts": ["x"]}}),
    }
    derived = {
        # CLDR has no presentation selector where the pictures' names have one.
        "package/annotationsDerived/en/annotations.json": annotations(
            "annotationsDerived", {"\u2639": {"default": ["sad"], "tts": ["frowning"]}}
        )
    }
    archives = {
        emoji.PICTURES.name: pictures,
        emoji.ANNOTATIONS[0].name: packed(folder / "main.tgz", main),
        emoji.ANNOTATIONS[1].name: packed(folder / "derived.tgz", derived),
    }
    monkeypatch.setattr(emoji, "LEAST_NAMES", 2)
    monkeypatch.setattr(
        emoji, "download", lambda packages, where: {p.name: archives[p.name] for p in packages}
    )


def test_names_of_emoji_find_their_pictures(tmp_path: Path, emoji_packages: None):
    card = emoji.build(tmp_path / "all", "all", "name", None)
    whole = crosslens.collection(tmp_path / "all")
    counts = whole.check()
    assert (counts.documents, counts.images) == (31, 31)
    assert card["locales"] == {"eng": "en", "rus": "ru"}
    assert card["left out"] == {
        "eng": {},
        "pictures": {"no English name": 1},
        "rus": {"name not translated": 1, "no keywords": 1, "no name": 2},
    }
    assert card["distinct pictures"] == 30
    asked = {query.id: query for query in whole.queries()}
    assert asked["rus/1f601"].text == "лицо номер 1"
    assert asked["rus/1f601"].lang == "rus"
    assert asked["eng/2639-fe0f"].text == "frowning"
    qrels = whole.qrels()
    assert qrels["eng/1f602"] == {"1f602": 3, "1f603": 3}  # the same picture
    assert qrels["rus/1f604"] == {"1f604": 3, "1f605": 3}  # the same name
    assert "rus/1f605" not in asked
    assert read_qrels(tmp_path / "all" / "qrels.txt")[1] == {}
    halves = {}
    for half in ("dev", "test"):
        part = crosslens.collection(tmp_path / "all" / half)
        assert part.check().images == 31
        halves |= {query.id: half for query in part.queries()}
        first = next(iter(part.docs())).image
        assert not first.is_symlink()
        assert first.is_relative_to((tmp_path / "all" / half).resolve())
    assert halves.keys() == asked.keys()
    assert all(halves[id] == halves[f"eng{id[3:]}"] for id in halves)
    assert halves["eng/1f602"] == halves["eng/1f603"]


def test_keywords_are_queries_too_and_the_bytes_are_the_same_again(tmp_path: Path, emoji_packages: None):
    for name in ("one", "two"):
        emoji.build(tmp_path / name, "rus,eng", "name+keywords", 4)
    assert same_files(tmp_path / "one", tmp_path / "two") == 3 * (3 + 31) + 2
    whole = crosslens.collection(tmp_path / "one")
    assert Counter(query.lang for query in whole.queries()) == {"eng": 8, "rus": 8}
    query = next(iter(whole.queries()))
    assert query.text == f"{query.meta['title']}\n{query.meta['description']}"
    assert next(query.text for query in whole.queries(fields="description")).startswith("face, k")
    with pytest.raises(InputError, match="CLDR has no names in French"):
        emoji.build(tmp_path / "three", "fra", "name", None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_a_package_laid_out_otherwise_is_said(tmp_path: Path):
    path = packed(tmp_path / "p.tgz", {"package/emoji.json": b"[]"})
    with pytest.raises(InputError, match=r"p\.tgz is not laid out as expected"):
        emoji.read_emoji(path)


# Stamps.


def test_captions_are_read_by_locale():
    text = "A  duck.\nde.utf8=Eine Ente.\npt_BR.utf8=Um pato = ave.\nxx.utf8=\nfr=no longer read\nde.utf8=Zweite.\n"
    assert stamps.read_captions(text) == {"en": "A duck.", "de": "Eine Ente.", "pt_BR": "Um pato = ave."}
    assert stamps.read_captions("\nde.utf8=Eine Ente.\n") == {}
    assert stamps.read_captions("") == {}


@pytest.fixture
def stamp_package(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    outside.write_bytes(png(999))

    def unpack(package: object, root: Path) -> None:
        base = root / "usr/share/tuxpaint/stamps"
        (base / "animals").mkdir(parents=True)

        def stamp(id: str, picture: bytes, *captions: str) -> None:
            (base / f"{id}.png").write_bytes(picture)
            (base / f"{id}.txt").write_text("\n".join(captions) + "\n", "utf-8")

        for n in range(30):
            stamp(f"animals/a{n:02}", png(n), f"Animal number {n}.", f"ru.utf8=Зверь номер {n}.")
        stamp("one", png(100), "A duck.", "ru.utf8=Утка.", "zh_CN.utf8=鸭子")
        stamp("other", png(101), "a duck", "ru.utf8=Другая утка.")
        stamp("copy", png(100, alpha=False), "A mallard.", "ru.utf8=A mallard.")
        stamp("broken", b"\x89PNG no more", "Broken.")
        (base / "one_mirror.png").write_bytes(png(102))
        (base / "bare.png").write_bytes(png(103))
        (base / "drawn.svg").write_text("<svg/>")
        (base / "drawn.txt").write_text("Drawn.\n")
        (base / "animals/a00.svg").write_text("<svg/>")
        (base / "link.png").symlink_to(outside)
        (base / "link.txt").write_text("A link.\n")

    package = module("debian_packages").Package("tuxpaint-stamps-default", "1", "0" * 64, Path("x.deb"))
    monkeypatch.setattr(stamps, "download", lambda names, folder: {names[0]: package})
    monkeypatch.setattr(stamps, "unpack", unpack)
    return outside


def test_captions_and_pictures_find_each_other(tmp_path: Path, stamp_package: Path):
    made = stamps.build(tmp_path / "all", "eng,rus", None)
    assert made["caption-to-picture"]["left out"] == {
        "eng": {},
        "rus": {"caption not translated": 1},
        "stamps": {
            "drawn in SVG only": 1,
            "mirrored or flipped variant": 1,
            "no caption": 1,
            "no readable picture": 1,
        },
    }
    to_pictures = crosslens.collection(tmp_path / "all" / "caption-to-picture")
    counts = to_pictures.check()
    assert (counts.documents, counts.images) == (33, 33)
    qrels = to_pictures.qrels()
    assert qrels["eng/one"] == {"copy": 3, "one": 3, "other": 3}  # the same caption, or the same picture
    assert qrels["rus/one"] == {"copy": 3, "one": 3}
    assert qrels["rus/other"] == {"other": 3}
    assert qrels["eng/copy"] == {"copy": 3, "one": 3}
    assert "eng/other" not in qrels  # the caption of `one`

    to_captions = crosslens.collection(tmp_path / "all" / "picture-to-caption")
    counts = to_captions.check()
    assert counts.langs == {"eng": 33, "rus": 32}
    qrels = to_captions.qrels()
    assert qrels["copy"] == dict.fromkeys(["eng/copy", "eng/one", "eng/other", "rus/one"], 3)
    assert "one" not in qrels  # the picture of `copy`
    assert qrels["other"] == dict.fromkeys(["eng/one", "eng/other", "rus/other"], 3)
    assert all(query.text is None and query.image.is_file() for query in to_captions.queries())

    halves: dict[str, set[str]] = {}
    for part in made:
        for half in ("dev", "test"):
            collection = crosslens.collection(tmp_path / "all" / part / half)
            collection.check()
            for query in collection.queries():
                stamp = query.id.removeprefix("eng/").removeprefix("rus/")
                halves.setdefault(stamp, set()).add(half)
    assert all(len(found) == 1 for found in halves.values())
    assert set().union(*halves.values()) == {"dev", "test"}
    assert halves["one"] == halves["copy"] == halves["other"]


def test_a_link_out_of_the_package_is_not_followed(tmp_path: Path, stamp_package: Path):
    stamps.build(tmp_path / "all", "rus", 3)
    whole = crosslens.collection(tmp_path / "all" / "caption-to-picture")
    assert "link" not in {doc.id for doc in whole.docs()}
    content = stamp_package.read_bytes()
    assert all(path.read_bytes() != content for path in tmp_path.rglob("*.png"))
    assert Counter(query.lang for query in whole.queries()) == {"rus": 6}
    assert len(list(crosslens.collection(tmp_path / "all" / "picture-to-caption").queries())) == 6


def test_the_same_stamps_again_give_the_same_bytes(tmp_path: Path, stamp_package: Path):
    for name in ("one", "two"):
        stamps.build(tmp_path / name, "all", None)
    assert same_files(tmp_path / "one", tmp_path / "two") == 2 * (3 * (3 + 33) + 2)
    with pytest.raises(InputError, match="one is there already"):
        stamps.build(tmp_path / "one", "rus", None)
    with pytest.raises(InputError, match="Tux Paint has no captions in French"):
        stamps.build(tmp_path / "three", "fra", None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


# All three.


@pytest.mark.parametrize("script", ["tuxpaint_stamps", "emoji", "debian_descriptions"])
def test_bad_arguments_end_with_one_line_and_status_2(script: str, tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for rest, complaint in (["--topics", "0"], "--topics must be at least 1"), ([], "full is there already"):
        command = [sys.executable, str(SCRIPTS / f"{script}.py"), str(tmp_path / "full"), *rest]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert complaint in done.stderr.splitlines()[-1]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]
