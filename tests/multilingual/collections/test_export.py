"""Export: the directory format and BEIR's, out and in again, without a loss; and what cannot be written."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from crosslens.commands import app as cli
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.collections.base import CollectionCounts, MissingPart
from crosslens.multilingual.collections.directory import Beir, Directory
from crosslens.multilingual.collections.export import ExportCounts, export_collection
from crosslens.multilingual.collections.registry import load_collection
from crosslens.pipeline import watch
from PIL import Image
from stand_ins.table import table


def picture(kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (3, 5), "green").save(out, kind)
    return out.getvalue()


class Held:
    """A collection held in memory: only what the protocol asks for."""

    name = "held"

    def __init__(self, docs: list[Item], topics: list[Item] = (), qrels: dict | None = None) -> None:  # type: ignore[assignment]
        self.held, self.topics, self.judged = docs, list(topics), qrels
        self.langs = frozenset(doc.lang for doc in docs if doc.lang)

    def docs(self) -> Iterator[Item]:
        return iter(self.held)

    def queries(self, *, fields=None, lang=None, source=None) -> list[Item]:
        if not self.topics:
            raise MissingPart("no topics")
        return [topic for topic in self.topics if lang in (None, topic.lang)]

    def qrels(self) -> dict:
        if self.judged is None:
            raise MissingPart("no qrels")
        return self.judged

    def check(self) -> CollectionCounts:
        raise NotImplementedError


@pytest.fixture
def mixed(tmp_path: Path) -> Held:
    photo = tmp_path / "a photo.jpeg"
    photo.write_bytes(picture("JPEG"))
    docs = [
        Item("../../etc/passwd", "Title\nText\nmore", None, "zho", {"title": "Title", "time": "2020", "n": 3}),
        Item("title-only", "Только", None, "rus", {"title": "Только"}),
        Item("other-title", "no such start", None, None, {"title": "Elsewhere"}),
        Item("photo", None, photo, None, {"tags": ["x", "y"]}),
        Item("bytes", "a caption", picture("WEBP"), "eng"),
        Item("opened", None, Image.new("RGB", (2, 2))),
    ]
    topics = [
        Item("q1", "what\nis it", None, "eng", {"kind": "text", "title": "what\nis it"}),
        Item("q2", None, picture()),
        Item("q3", "никто", None, "rus"),
    ]
    return Held(docs, topics, {"q1": {"../../etc/passwd": 3, "photo": 0}, "q2": {"bytes": 1}})


def content(item: Item) -> tuple:
    image = item.image.read_bytes() if isinstance(item.image, Path) else item.image
    return item.id, item.text, item.lang, dict(item.meta), image


@pytest.mark.parametrize(("format", "kind"), [("directory", Directory), ("beir", Beir)])
def test_out_and_in_again(tmp_path, mixed, format, kind):
    target = tmp_path / "out"
    assert export_collection(mixed, target, format) == ExportCounts(
        documents=6, media={"image": 4}, queries=3, judged=3
    )
    again = load_collection(target)
    assert isinstance(again, kind)
    expected = [content(item) for item in mixed.docs()]
    expected[2] = (*expected[2][:3], {}, None)  # a title that is not in the text would change the text
    expected[5] = (*expected[5][:4], expected[5][4])
    found = [content(item) for item in again.docs()]
    assert found[:5] == expected[:5]
    assert Image.open(io.BytesIO(found[5][4])).size == (2, 2)
    # BEIR keeps only the queries that a split judges.
    topics = mixed.topics if format == "directory" else mixed.topics[:2]
    assert [content(query) for query in again.queries()] == [content(query) for query in topics]
    assert again.qrels() == mixed.qrels()
    counts = again.check()
    assert (counts.documents, counts.images, counts.judged, counts.relevant) == (6, 3, 3, 2)
    for path in target.rglob("*"):
        assert path.resolve().is_relative_to(target.resolve())
    suffixes = sorted(path.suffix for path in (target / "images").rglob("*.*"))
    assert suffixes == [".jpg", ".png", ".png", ".webp"]
    # And from what was read to the other format and back: nothing is left to lose.
    there = tmp_path / "there"
    export_collection(again, there, "beir" if format == "directory" else "directory")
    back = tmp_path / "back"
    export_collection(load_collection(there), back, format)
    assert [content(item) for item in load_collection(back).docs()] == found


def test_beir_files_are_as_beir_has_them(tmp_path, mixed):
    export_collection(mixed, tmp_path / "out", "beir", split="dev")
    rows = [json.loads(line) for line in (tmp_path / "out/corpus.jsonl").read_text("utf-8").splitlines()]
    assert rows[0] == {
        "_id": "../../etc/passwd", "title": "Title", "text": "Text\nmore",
        "metadata": {"lang": "zho", "time": "2020", "n": 3},
    }  # fmt: skip
    assert rows[3] == {
        "_id": "photo", "title": "", "text": "", "metadata": {"image": "images/000/000000.jpg", "tags": ["x", "y"]}
    }  # fmt: skip
    assert (tmp_path / "out/qrels/dev.tsv").read_text() == (
        "query-id\tcorpus-id\tscore\nq1\t../../etc/passwd\t3\nq1\tphoto\t0\nq2\tbytes\t1\n"
    )


def test_qrels_keep_the_languages_of_documents(tmp_path, mixed):
    export_collection(mixed, tmp_path / "out")
    assert (tmp_path / "out/qrels.txt").read_text().splitlines() == [
        "q1 zho ../../etc/passwd 3", "q1 0 photo 0", "q2 eng bytes 1"
    ]  # fmt: skip
    again = load_collection(tmp_path / "out")
    assert isinstance(again, Directory)
    assert again.judged_langs() == {"../../etc/passwd": "zho", "bytes": "eng"}


def test_what_a_collection_lacks_is_not_made_up(tmp_path, mixed):
    assert export_collection(Held(mixed.held), tmp_path / "docs").queries == 0
    assert not {"topics.jsonl", "qrels.txt"} & {path.name for path in (tmp_path / "docs").iterdir()}
    some = export_collection(mixed, tmp_path / "rus", lang="rus")
    assert (some.queries, some.judged) == (1, 0)  # judgements of the other topics would be of nothing
    assert not (tmp_path / "rus/qrels.txt").exists()


@table(
    ("doc", "told"),
    [
        (Item("a", "b", None, None, {"x": b"bytes"}), "'a' cannot be written as JSON"),
        (Item("a", "b", None, None, {"x": float("nan")}), "'a' cannot be written as JSON"),
        (Item("a", "half \ud800"), "'a' cannot be written as JSON"),
        (Item("a", None, b"no picture"), "document 'a': not a picture in a known format"),
        (Item("a", None, Path("/dev/zero")), "document 'a': the image cannot be opened (a device"),
        (Item("a", None, Path("/nowhere.jpg")), "document 'a': the image cannot be opened"),
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(tmp_path, doc, told):
    with pytest.raises(InputError) as error:
        export_collection(Held([Item("first", "text"), doc]), tmp_path / "out")
    assert told in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_where_it_cannot_go(tmp_path, mixed):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("keep me")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="there already and not an empty directory"):
        export_collection(mixed, tmp_path / "full")
    assert (tmp_path / "full/x").read_text() == "keep me"
    with pytest.raises(InputError, match="no directory .*no to make"):
        export_collection(mixed, tmp_path / "no/out")
    with pytest.raises(InputError, match="unknown export format 'bier'; did you mean beir"):
        export_collection(mixed, tmp_path / "empty", "bier")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has no documents to export"):
        export_collection(Held([]), tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []
    assert export_collection(mixed, tmp_path / "empty").documents == 6


def test_documents_are_streamed(tmp_path):
    taken = 0

    class Endless(Held):
        def docs(self) -> Iterator[Item]:
            nonlocal taken
            for taken in range(1, 1000):
                yield Item(str(taken), "text")
                if taken == 500:
                    (partial,) = tmp_path.iterdir()
                    assert (partial / "docs.jsonl").stat().st_size > 0
                    raise InputError("the 500th is broken")

    reports: list[int] = []
    with pytest.raises(InputError, match="500th"), watch(reports.append):
        export_collection(Endless([]), tmp_path / "out")
    assert (taken, reports) == (500, list(range(1, 501)))


# The command


def test_the_command(tmp_path, monkeypatch, capsys, mixed):
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["crosslens", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    export_collection(mixed, tmp_path / "one")
    status, out, err = call("export", tmp_path / "one", tmp_path / "two", "--format", "beir", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == {
        "directory": str(tmp_path / "two"), "format": "beir", "documents": 6, "images": 4, "queries": 3, "judged": 3
    }  # fmt: skip
    status, out, _ = call("export", tmp_path / "two", tmp_path / "three")
    assert (status, out) == (0, f"{tmp_path / 'three'}: 6 documents, 2 topics, 3 judgements, 4 pictures\n")
    status, out, err = call("export", tmp_path / "two", tmp_path / "three")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "there already" in err
