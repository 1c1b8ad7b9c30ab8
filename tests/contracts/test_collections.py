"""The contract of `collections.base.Collection`, over every kind; a new kind is one function in `stand_ins/small_collections.py`."""

from __future__ import annotations

import gzip
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crosslens
import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.media.modalities import MEDIA, Medium, register, unregister
from crosslens.multilingual.collections.base import Collection, CollectionCounts, FileCollection, MissingPart
from crosslens.multilingual.collections.export import export_collection
from crosslens.multilingual.collections.registry import FAMILIES, load_collection
from crosslens.specs import Spec
from stand_ins.small_collections import CASES, LINES, Written, install_ir_datasets, install_lines, put, put_picture
from stand_ins.table import table

PATHS = ("directory", "packed_directory", "single_file", "table", "dataset")  # named by a path, not by a SPEC
FLAT = (*PATHS[:3], "beir")  # whose records name their media


@pytest.fixture(autouse=True)
def packages(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """ir_datasets, and a package with a collection of its own."""
    install_ir_datasets(monkeypatch)
    monkeypatch.syspath_prepend(str(install_lines(tmp_path_factory.mktemp("outside"))))


@pytest.fixture(params=CASES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def written(kind: str, tmp_path: Path) -> Written:
    return write(kind, tmp_path)


def write(kind: str, folder: Path) -> Written:
    (root := folder / "collection").mkdir()
    return CASES[kind](root)


@pytest.fixture
def collection(written: Written) -> Collection:
    return load_collection(written.name)


def read_all(collection: Collection) -> tuple[list[Item], list[Item], dict[str, dict[str, int]]]:
    """Documents, queries and judgements; what it lacks is empty."""
    try:
        queries = list(collection.queries())
    except MissingPart:
        queries = []
    try:
        qrels = {topic: dict(grades) for topic, grades in collection.qrels().items()}
    except MissingPart:
        qrels = {}
    return list(collection.docs()), queries, qrels


def test_every_family_has_a_case() -> None:
    assert {Spec.parse(CASES[name](Path()).name).family for name in ("demo", "irds")} <= FAMILIES.keys()
    families = {name.replace("browsecomp", "browsecomp-plus") for name in CASES}
    assert families >= FAMILIES.keys()


def test_what_it_reads_is_a_collection(collection: Collection, written: Written, tmp_path: Path) -> None:
    assert isinstance(collection, Collection)
    assert collection.name
    assert isinstance(collection.langs, frozenset)
    assert type(crosslens.collection(written.name)) is type(collection)
    # Documents stream; documents and queries come in the same order twice.
    assert isinstance(collection.docs(), Iterator)
    docs, queries, qrels = read_all(collection)
    assert (docs, queries, qrels) == read_all(collection)
    for items in (docs, queries):
        assert len({item.id for item in items}) == len(items)
        assert all(item.modalities for item in items)
    # M-BEIR's texts and an empty set: BrowseComp-Plus and ViDoRe do not say which languages their pages are in.
    langs = {doc.lang for doc in docs if doc.lang}
    assert langs <= collection.langs or not collection.langs
    assert all(len(lang) == 3 for lang in langs | collection.langs)
    # Judgements are of documents and queries that are there.
    assert qrels.keys() <= {query.id for query in queries}
    assert {doc for judged in qrels.values() for doc in judged} <= {doc.id for doc in docs}
    assert all(type(grade) is int for judged in qrels.values() for grade in judged.values())
    # Media lie in the directory, but for the demo's photos, which lie in installed packages.
    for item in (*docs, *queries) if written.name != "demo" else ():
        for value in item.contents.values():
            assert not isinstance(value, Path) or value.is_relative_to((tmp_path / "collection").resolve())


def test_check_counts_what_there_is(collection: Collection) -> None:
    docs, queries, qrels = read_all(collection)
    counts = collection.check()
    grades = [grade for judged in qrels.values() for grade in judged.values()]
    langs = Counter(doc.lang or "" for doc in docs)
    if isinstance(collection, type(load_collection("demo"))):
        del langs[""]  # its photos are counted apart
    assert counts.documents == len(docs)
    assert counts.langs == langs
    assert counts.media == Counter(name for doc in docs for name in doc.modalities - {"text"})
    assert counts.images == sum(doc.image is not None for doc in docs)
    assert (counts.queries, counts.judged) == (len(queries), len(grades))
    assert counts.relevant == sum(grade > 0 for grade in grades)
    assert counts.skipped == 0
    assert CollectionCounts.from_json(counts.to_json()) == counts


def test_a_choice_of_queries_is_kept_to_or_named(collection: Collection) -> None:
    queries = read_all(collection)[1]
    for lang in {query.lang for query in queries if query.lang}:
        assert {query.lang for query in collection.queries(lang=lang)} == {lang}
    if queries:
        with pytest.raises(InputError, match=r"are pictures|unknown language of|in isl|in Icelandic"):
            list(collection.queries(lang="Icelandic"))
        with pytest.raises(InputError, match="unknown language 'Elvish'"):
            list(collection.queries(lang="Elvish"))
    choices: tuple[dict[str, Any], ...] = ({"fields": "titel"}, {"source": "orginal"})
    for choice in choices:  # unknown, or its queries do not have it
        with pytest.raises(InputError, match=r"titel|orginal|no fields|no topics|no docs") as error:
            list(collection.queries(**choice))
        assert "\n" not in str(error.value)


@table("kind", [name for name in CASES if name not in PATHS])
def test_an_unknown_option_is_named(kind: str, tmp_path: Path) -> None:
    written = write(kind, tmp_path)
    with pytest.raises(InputError, match="unknown option of"):
        load_collection(f"{written.name}{'&' if '?' in written.name else '?'}lnag=x")


def test_what_it_lacks_is_an_error_of_its_own(written: Written) -> None:
    for path, part, counted in ((written.qrels, "qrels", "judged"), (written.topics, "queries", "queries")):
        if path is not None:
            path.unlink()
            collection = load_collection(written.name)
            with pytest.raises(MissingPart) as error:
                getattr(collection, part)()
            assert "\n" not in str(error.value)
            assert getattr(collection.check(), counted) == 0


@pytest.mark.parametrize("kind", LINES)
@table(
    ("line", "told"),
    [('{"id": ', "malformed JSON"), ("[1]", "not a JSON object but list"), ("{}", "no "), (None, "second time")],
)
def test_a_bad_row_is_named_with_file_and_line_or_skipped_and_counted(
    kind: str, tmp_path: Path, line: str | None, told: str
) -> None:
    written = write(kind, tmp_path)
    assert written.docs is not None
    packed = written.docs.suffix == ".gz"
    content = gzip.decompress(written.docs.read_bytes()) if packed else written.docs.read_bytes()
    first, *_ = lines = content.decode().splitlines()
    content += f"{first if line is None else line}\n".encode()
    expected = [doc.id for doc in load_collection(written.name).docs()]
    written.docs.write_bytes(gzip.compress(content) if packed else content)
    stream = load_collection(written.name).docs()
    assert next(stream).id == expected[0]  # what is behind is not read yet
    with pytest.raises(InputError) as error:
        list(stream)
    message = str(error.value)
    assert message.startswith(f"{written.docs.resolve()}:{len(lines) + 1}: ")
    assert told in message
    assert "\n" not in message
    lenient = load_collection(written.name, skip_bad=True)
    assert isinstance(lenient, FileCollection)
    for _ in range(2):  # a second pass does not count twice
        assert [doc.id for doc in lenient.docs()] == expected
        assert (lenient.skipped, lenient.problems) == (1, [message])


def test_a_damaged_file_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    for name in ("bright", "browsecomp", "vidore"):
        written = CASES[name](tmp_path / name)
        for path in (tmp_path / name).rglob("*.parquet"):
            path.write_bytes(b"PAR1 no PAR1")
        with pytest.raises(InputError, match=r"cannot read .*\.parquet after row 0"):
            list(load_collection(written.name, skip_bad=True).docs())


@table("kind", [*FLAT, "mbeir"])
@table(
    ("path", "told"),
    [("../secret.jpg", "outside"), ("link.jpg", "outside"), ("{secret}", "relative"), ("no.jpg", "not exist")],
)
def test_no_record_names_a_file_elsewhere(kind: str, path: str, told: str, tmp_path: Path) -> None:
    secret = put_picture(tmp_path / "secret.jpg")
    written = CASES[kind](tmp_path / "collection")
    (tmp_path / "collection" / "link.jpg").symlink_to(secret)
    given = path.format(secret=secret)
    records = {
        "beir": {"_id": "x", "text": "t", "metadata": {"image": given}},
        "mbeir": {"did": "x", "img_path": given},
    }
    put(written.docs, records.get(kind, {"id": "x", "image": given}))
    with pytest.raises(InputError, match=rf":1: the image '{given}' .*{told}"):
        list(load_collection(written.name).docs())


def test_any_collection_is_exported_and_read_again(collection: Collection, tmp_path: Path) -> None:
    docs, queries, qrels = read_all(collection)
    for format in ("directory", "beir"):
        counts = export_collection(collection, tmp_path / format, format)  # type: ignore[arg-type]
        docs_again, queries_again, qrels_again = read_all(load_collection(tmp_path / format))
        assert [*map(content, docs_again)] == [*map(content, docs)]
        judged = {query.id for query in queries} if format == "directory" or not qrels else qrels.keys()
        assert [*map(content, queries_again)] == [content(query) for query in queries if query.id in judged]
        assert qrels_again == qrels
        assert (counts.documents, counts.queries, counts.judged) == (
            len(docs), len(queries), sum(map(len, qrels.values()))
        )  # fmt: skip
        assert counts.images == sum(item.image is not None for item in (*docs, *queries))


def content(item: Item) -> tuple[object, ...]:
    image = item.image.read_bytes() if isinstance(item.image, Path) else item.image
    return item.id, item.text, item.lang, image


# A modality that one file registers.


@pytest.fixture
def melody() -> Iterator[Medium]:
    medium = Medium("melody", (".notes",), lambda source: source, bytes, bytes)
    register(medium)
    yield medium
    unregister(medium.name)


@pytest.mark.parametrize("kind", FLAT)
def test_a_new_modality_is_read_counted_and_exported(kind: str, melody: Medium, tmp_path: Path) -> None:
    root = tmp_path / "collection"
    written = CASES[kind](root)
    notes = put(root / "tunes/a.notes", "C E G")
    record = {"_id": "m", "metadata": {"melody": "tunes/a.notes"}} if kind == "beir" else {
        "id": "m", "melody": "tunes/a.notes", "image": "pictures/a.jpg", "mood": "merry"
    }  # fmt: skip
    put(written.docs, record)
    if written.topics:
        written.topics.unlink()
    collection = load_collection(written.name)
    (item,) = collection.docs()
    assert item.media == {"melody": notes.resolve()}
    assert "melody" in item.modality
    assert "melody" not in item.meta
    counts = collection.check() if kind == "single_file" else None
    if counts:
        assert counts.media == {"image": 1, "melody": 1}
        assert counts.to_json()["media"] == {"melody": 1}
        assert CollectionCounts.from_json(counts.to_json()) == counts
    for format in ("directory", "beir"):
        exported = export_collection(collection, tmp_path / format, format)  # type: ignore[arg-type]
        assert exported.media["melody"] == 1
        assert exported.to_json()["media"] == {"melody": 1}
        (again,) = load_collection(tmp_path / format).docs()
        path = again.media["melody"]
        assert isinstance(path, Path)
        assert (path.name, path.read_text()) == ("000000.notes", "C E G\n")
        assert path.parent.parent.name == "melodys"
    put(written.docs, {"_id": "m", "metadata": {"melody": "../x"}} if kind == "beir" else {"id": "m", "melody": "../x"})
    with pytest.raises(InputError, match=r"the melody '../x' lies outside"):
        list(collection.docs())


def test_media_in_memory_are_exported_too(melody: Medium, tmp_path: Path) -> None:
    class Held:
        name, langs = "held", frozenset(["eng"])

        def docs(self) -> Iterator[Item]:
            yield Item("bytes", media={"melody": b"A"})
            yield Item("object", media={"melody": bytearray(b"B")})

        def queries(self, **_: object) -> list[Item]:
            raise MissingPart("no topics")

        def qrels(self) -> dict[str, dict[str, int]]:
            raise MissingPart("no qrels")

        def check(self) -> CollectionCounts:
            raise NotImplementedError

    export_collection(Held(), tmp_path / "out")  # type: ignore[arg-type]
    found = [path.read_bytes() for path in sorted((tmp_path / "out").rglob("*.notes"))]
    assert found == [b"A", b"B"]
    assert set(MEDIA) == {"image", "melody"}


def test_a_picture_that_is_none_is_not_exported(tmp_path: Path) -> None:
    written = CASES["directory"](tmp_path / "collection")
    (tmp_path / "collection/pictures/a.jpg").write_bytes(io.BytesIO(b"no picture").read())
    with pytest.raises(InputError, match="document 'd3': not a picture in a known format"):
        export_collection(load_collection(written.name), tmp_path / "out")
    assert not (tmp_path / "out").exists()
