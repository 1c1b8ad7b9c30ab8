"""The makers of the collections of stamps and emoji, offline: packages written in the test."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

import crosslens
import pytest
from crosslens.errors import InputError
from crosslens.runs import read_qrels
from stand_ins.collection_scripts import emoji, module, npm, png, same_files, stamps


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
        {"package/a.json": b"1", "package/a.json.bak": b"2", "../package/a.json": b"3", "package/b.json": b"4"},
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
            return subprocess.CompletedProcess(command, 1, "", "npm error code E404\nnpm error 404 Not Found\n")
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
        "package/annotations/en-AU/annotations.json": annotations("annotations", {FACES[0]: english[FACES[0]]}),
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
    monkeypatch.setattr(emoji, "download", lambda packages, where: {p.name: archives[p.name] for p in packages})


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
        "stamps": {"drawn in SVG only": 1, "mirrored or flipped variant": 1, "no caption": 1, "no readable picture": 1},
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
