"""The LanceDB index itself: full text by language, resuming after a kill, full disks, approximate search."""

from __future__ import annotations

import hashlib
import math
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from crosslens.encoders.base import EncoderSpec, unit
from crosslens.errors import InputError
from crosslens.indexes import ann, derived, fulltext
from crosslens.indexes.lance import LanceIndex
from crosslens.indexes.registry import create_index, index_class, open_index
from crosslens.indexes.table import facet, facets, failing, key_of, where_sql
from crosslens.items import Dense, Item

# Students reading old books in a library; heavy rain in the mountains; a team that won its match.
TEXTS = {
    "eng": [
        "Three students were reading old books in the library.",
        "Heavy rains fell on the mountains all night.",
        "The team won its last match and the players celebrated.",
    ],
    "rus": [
        "Студенты читают старые книги в библиотеке.",
        "Всю ночь в горах шёл сильный дождь.",
        "Команда выиграла последний матч, и игроки праздновали победу.",
    ],
    "fas": [
        "دانشجویان در کتابخانه کتاب‌های قدیمی می‌خوانند.",
        "تمام شب در کوهستان باران شدیدی بارید.",
        "تیم آخرین مسابقه را برد و بازیکنان جشن گرفتند.",
    ],
    "zho": [
        "学生们在图书馆里阅读旧书。",
        "山区整夜下着大雨。",
        "球队赢得了最后一场比赛，球员们庆祝胜利。",
    ],
    "jpn": [
        "学生たちは図書館で古い本を読んでいます。",
        "一晩中、山では激しい雨が降った。",
        "チームは最後の試合に勝ち、選手たちは喜んだ。",
    ],
    "tha": [
        "นักเรียนกำลังอ่านหนังสือเก่าในห้องสมุด",
        "ฝนตกหนักบนภูเขาตลอดทั้งคืน",
        "ทีมชนะการแข่งขันนัดสุดท้ายและผู้เล่นฉลองกัน",
    ],
    "ara": [
        "يقرأ الطلاب الكتب القديمة في المكتبة.",
        "هطلت أمطار غزيرة على الجبال طوال الليل.",
        "فاز الفريق في المباراة الأخيرة واحتفل اللاعبون.",
    ],
    "deu": [
        "Die Studenten lasen in der Bibliothek alte Bücher.",
        "Die ganze Nacht regnete es heftig in den Bergen.",
        "Die Mannschaft gewann das letzte Spiel, und die Spieler feierten.",
    ],
    "spa": [
        "Los estudiantes leían libros antiguos en la biblioteca.",
        "Llovió con fuerza en las montañas toda la noche.",
        "El equipo ganó el último partido y los jugadores celebraron.",
    ],
    "hin": [
        "विद्यार्थी पुस्तकालय में पुरानी किताबें पढ़ रहे थे।",
        "पहाड़ों पर रात भर तेज़ बारिश हुई।",
        "टीम ने आख़िरी मैच जीता और खिलाड़ियों ने जश्न मनाया।",
    ],
    "swa": [
        "Wanafunzi walikuwa wakisoma vitabu vya zamani katika maktaba.",
        "Mvua kubwa ilinyesha milimani usiku kucha.",
        "Timu ilishinda mechi ya mwisho na wachezaji walisherehekea.",
    ],
    "fin": [
        "Opiskelijat lukivat vanhoja kirjoja kirjastossa.",
        "Vuorilla satoi rankasti koko yön.",
        "Joukkue voitti viimeisen ottelun, ja pelaajat juhlivat.",
    ],
    "tur": [
        "Öğrenciler kütüphanede eski kitapları okuyordu.",
        "Dağlarda bütün gece şiddetli yağmur yağdı.",
        "Takım son maçı kazandı ve oyuncular kutladı.",
    ],
    "kor": [
        "학생들이 도서관에서 오래된 책을 읽고 있었다.",
        "산에는 밤새 큰비가 내렸다.",
        "그 팀은 마지막 경기에서 이겼고 선수들은 축하했다.",
    ],
    "tam": [
        "மாணவர்கள் நூலகத்தில் பழைய புத்தகங்களைப் படித்தார்கள்.",
        "மலைகளில் இரவு முழுவதும் பலத்த மழை பெய்தது.",
        "அணி கடைசி போட்டியில் வென்றது; வீரர்கள் கொண்டாடினர்.",
    ],
    "ell": [
        "Οι φοιτητές διάβαζαν παλιά βιβλία στη βιβλιοθήκη.",
        "Όλη τη νύχτα έβρεχε δυνατά στα βουνά.",
        "Η ομάδα κέρδισε τον τελευταίο αγώνα και οι παίκτες γιόρτασαν.",
    ],
}
# language, query in other forms than the document has, and which of its texts it asks for
INFLECTED = [
    ("eng", "student's book", 0),
    ("eng", "mountain raining", 1),
    ("eng", "teams matches", 2),
    ("rus", "студенту нужна книга", 0),
    ("rus", "дожди на горе", 1),
    ("rus", "игрока команды", 2),
    ("fas", "کتاب دانشجو", 0),
    ("fas", "باران‌های کوه", 1),
    ("fas", "بازیکن تیم‌ها", 2),
    ("zho", "一个学生读的书", 0),
    ("zho", "足球比赛的胜利", 2),
    ("jpn", "学生が本を読む", 0),
    ("jpn", "雨が降る山", 1),
    ("jpn", "試合に勝つ選手", 2),
    ("tha", "หนังสือของนักเรียน", 0),
    ("tha", "ภูเขาที่มีฝน", 1),
    ("tha", "ผู้เล่นของทีม", 2),
    ("ara", "كتاب الطالب في مكتبة", 0),
    ("ara", "لاعب الفريقين", 2),
    ("deu", "Buch eines Studenten", 0),
    ("deu", "regnen Berg", 1),
    ("deu", "Spielern der Mannschaften", 2),
    ("spa", "el libro del estudiante", 0),
    ("spa", "lloviendo en la montaña", 1),
    ("spa", "jugador de equipos", 2),
    ("hin", "विद्यार्थियों की किताब", 0),
    ("hin", "पहाड़ की बारिश", 1),
    ("hin", "खिलाड़ी और टीमें", 2),
    ("swa", "mwanafunzi anasoma kitabu", 0),
    ("swa", "mlima na mvua", 1),
    ("swa", "mchezaji wa timu", 2),
    ("fin", "opiskelijan kirja", 0),
    ("fin", "pelaajien joukkueet", 2),
    ("tur", "öğrencinin kitabı", 0),
    ("tur", "dağın yağmurları", 1),
    ("tur", "oyuncunun takımı", 2),
    ("kor", "학생의 책", 0),
    ("kor", "산의 큰비", 1),
    ("kor", "선수들의 경기", 2),
    ("tam", "மாணவன் புத்தகம்", 0),
    ("tam", "மலை மழையில்", 1),
    ("tam", "வீரர் அணிகள்", 2),
    ("ell", "το βιβλίο του φοιτητή", 0),
    ("ell", "το βουνό και η βροχή έβρεξε", 1),
    ("ell", "παίκτης της ομάδας", 2),
]


@pytest.fixture(scope="module")
def texts() -> LanceIndex:
    """The texts above and five that name a Nokia 3310, with full text alone."""
    index = create_index("memory://")
    index.add(
        [
            *(
                Item(f"{lang}{n}", text, lang=lang)
                for lang, held in TEXTS.items()
                for n, text in enumerate(held)
            ),
            Item("nokia-deu", "Das Nokia 3310 kam im Jahr 2000 auf den Markt.", lang="deu"),
            Item("nokia-fas", "گوشی Nokia 3310 در سال 2000 عرضه شد.", lang="fas"),
            Item("nokia-swa", "Simu ya Nokia 3310 ilitolewa mwaka 2000.", lang="swa"),
            Item("nokia-zho", "诺基亚 Nokia 3310 手机于2000年上市。", lang="zho"),
            Item("nokia-rus", "Телефон Nokia 3310 вышел в 2000 году.", lang="rus"),
        ]
    )
    return index


@pytest.mark.parametrize(("lang", "query", "text"), INFLECTED)
def test_full_text_finds_other_forms_of_words(texts: LanceIndex, lang: str, query: str, text: int) -> None:
    found = texts.search([Item("q", query, lang=lang)], 5, mode="lexical")["q"]
    assert found[0].id == f"{lang}{text}"


@pytest.mark.parametrize("lang", ["eng", "spa", "ara", "jpn", "hin", None])
def test_full_text_finds_names_and_numbers_in_other_languages(texts: LanceIndex, lang: str | None) -> None:
    found = texts.search([Item("q", "Nokia 3310", lang=lang)], 10, mode="lexical")["q"]
    assert {hit.id for hit in found[:5]} == {f"nokia-{each}" for each in ("deu", "fas", "swa", "zho", "rus")}


def test_fragments_of_words_find_nothing_in_other_languages(texts: LanceIndex) -> None:
    """Swahili is indexed by fragments of two and three letters, which any Latin text shares."""
    found = texts.search(
        [Item("q", "a library of the teams and their ships", lang="eng")], 50, mode="lexical"
    )
    assert not [hit.id for hit in found["q"] if hit.id.startswith("swa")]
    assert found["q"][0].id in ("eng0", "eng2")


@pytest.mark.parametrize(
    "query",
    [
        '"',
        "'",
        "(",
        ") OR (",
        "AND",
        "NOT books",
        "* : ^ ~ \\",
        "books~2",
        "text:books",
        "+-",
        "🎈",
        "a" * 5000,
        "\x00",
    ],
)
@pytest.mark.parametrize("lang", ["eng", "zho", "fas", None])
def test_full_text_queries_are_plain_words(texts: LanceIndex, query: str, lang: str | None) -> None:
    found = texts.search([Item("q", query, lang=lang)], 5, mode="lexical")["q"]
    if lang == "eng" and "books" in query:
        assert found[0].id == "eng0"
    if query in ('"', "+-", "🎈"):
        assert found == ()


def test_full_text_scores_are_bm25_with_the_constants_that_manifests_tell() -> None:
    texts = {"a": "cat cat dog", "b": "cat bird", "c": "dog bird bird river stone", "d": "cat cat cat river"}
    index = create_index("memory://")
    index.add(Item(id, text, lang="eng") for id, text in texts.items())
    words = {id: text.split() for id, text in texts.items()}
    average = sum(map(len, words.values())) / len(words)

    def bm25(word: str, document: list[str]) -> float:
        holding = sum(word in each for each in words.values())
        idf = math.log(1 + (len(words) - holding + 0.5) / (holding + 0.5))
        times = document.count(word)
        room = fulltext.K1 * (1 - fulltext.B + fulltext.B * len(document) / average)
        return idf * times * (fulltext.K1 + 1) / (times + room)

    run = index.retriever("lexical", 10)([Item("q", "cat river", lang="eng")])
    assert {hit.id for hit in run["q"]} == set(texts)
    for hit in run["q"]:
        assert hit.score == pytest.approx(
            sum(bm25(word, words[hit.id]) for word in ("cat", "river")), rel=1e-5
        )
    assert run.manifest.records[0].stage == "lexical (BM25, k1=1.2, b=0.75)"


def test_stop_words_alone_find_nothing(texts: LanceIndex) -> None:
    assert (
        texts.search([Item("q", "of the", lang="eng")], 5, mode="lexical", where={"lang": "eng"})["q"] == ()
    )


def test_composed_and_decomposed_letters_are_the_same(texts: LanceIndex) -> None:
    import unicodedata

    for lang, query, text in [("spa", "montaña", 1), ("tur", "dağların", 1), ("fin", "öitä yötä koko", 1)]:
        for form in ("NFC", "NFD"):
            asked = Item("q", unicodedata.normalize(form, query), lang=lang)
            assert texts.search([asked], 1, mode="lexical")["q"][0].id == f"{lang}{text}"


def test_groups_of_languages() -> None:
    assert [fulltext.group_of(each) for each in ("eng", "nob", "zho", "tha", "fas", "hin", None, "xx")] == [
        "eng", "nor", "icu", "icu", "ngram", "ngram", "ngram", "ngram",
    ]  # fmt: skip
    assert len(set(fulltext.COLUMNS)) == len(fulltext.GROUPS)


def test_facets_and_filters_are_unambiguous() -> None:
    assert facets({"a": 1, "b": [True, 2.0, "x=y"], "c": None, "d": {"e": 1}, "f=g": "h"}) == [
        "a=1", "b=true", "b=2", "b=x=y", "f%3Dg=h",
    ]  # fmt: skip
    assert key_of(facet("100%=x", "v")) == "100%=x"
    assert len(facet("url", "x" * 1000)) < 60
    assert facet("url", "x" * 1000) != facet("url", "x" * 1001)
    assert where_sql(None, ()) is where_sql({}, ()) is None
    assert where_sql({"lang": "a'b"}, ()) == "lang IN ('a''b')"


class Cheap:
    """One direction a text, by its digest."""

    def __init__(self, dim: int = 16) -> None:
        self.spec = EncoderSpec("fake:cheap", "1", ("text",), dim)

    def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
        for item in items:
            seed = int.from_bytes(hashlib.blake2b((item.text or "").encode(), digest_size=8).digest(), "big")
            random = np.random.default_rng(seed)
            yield Dense([item.id], unit(random.standard_normal((1, self.spec.dim))))


def documents(count: int = 3000) -> list[Item]:
    return [Item(f"d{n}", f"text number {n}", lang=("eng", "zho", "fas")[n % 3]) for n in range(count)]


def contents(index: LanceIndex) -> list[dict]:
    """All that is stored, vectors as encoded and corrected included, by id."""
    rows = []
    for table in ("documents", "corrected"):
        rows += sorted(index._tables._open[table].to_arrow().to_pylist(), key=lambda row: row["id"])
    return rows


def child(path: Path) -> subprocess.Popen[str]:
    """Another process that runs this file's `main`."""
    return subprocess.Popen(
        [sys.executable, __file__, str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def main(path: str) -> None:
    index = create_index(path)
    print("ready", flush=True)
    index.add(documents(), Cheap(), progress=lambda done: print(done, flush=True))
    print("added", flush=True)


def test_a_killed_add_goes_on_to_the_identical_index(tmp_path: Path) -> None:
    """SIGKILL at moments all over the writing and what follows it, one after another in one directory."""
    whole = create_index(tmp_path / "whole")
    whole.add(documents(), Cheap())
    path = tmp_path / "killed"
    seed = int(time.time())  # other moments every time
    random = np.random.default_rng(seed)
    moments = [("ready", 0.03), ("1024", 0.03), ("2560", 0.05), ("3000", 0.05), ("3000", 0.3)]
    killed = 0
    for line, longest in moments:
        process = child(path)
        assert process.stdout is not None
        for each in process.stdout:
            if each.strip() == line:
                break
        time.sleep(random.uniform(0, longest))
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 4  # the last may have been done by then
    index = create_index(path)
    index.add(documents(), Cheap())
    assert len(index) == 3000
    assert index.fingerprint == whole.fingerprint
    assert contents(index) == contents(whole), f"seed {seed}"
    queries = [Item("q", "text number 77", lang="zho"), Item("r", "number 1234", lang="fas")]
    for mode in ("dense", "lexical", "hybrid"):
        assert index.search(queries, 20, mode=mode).hits == whole.search(queries, 20, mode=mode).hits


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    index = create_index(tmp_path)

    class Meddling(Cheap):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
            with pytest.raises(InputError, match="another process is writing"):
                open_index(tmp_path).add(documents(10), Cheap())
            return super().encode(items, role)

    assert index.add(documents(10), Meddling()) == 10
    assert index.add(documents(20), Cheap()) == 10


def test_a_file_that_cannot_grow_is_one_clear_line(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the write fails, a rerun goes on."""
    process = subprocess.run(
        [sys.executable, __file__, str(tmp_path), "limited"], capture_output=True, text=True, check=False
    )
    assert process.returncode == 2, process.stderr
    failed = process.stdout[process.stdout.index("failed: ") :]
    assert failed.startswith(f"failed: cannot write {tmp_path}: ")
    assert len(failed.splitlines()) == 1
    index = create_index(tmp_path)
    index.add(documents(), Cheap())
    assert len(index) == 3000


def test_a_full_disk_is_named() -> None:
    full = "lance error: LanceError(IO): No space left on device (os error 28), file.rs:1"
    with pytest.raises(InputError, match="DIR: the disk is full; make room and rerun `crosslens index`"):
        raise_in("write", RuntimeError(full))
    with pytest.raises(RuntimeError, match="a bug"):
        raise_in("read", RuntimeError("a bug"))


def raise_in(what: str, error: Exception) -> None:
    with failing(what, "DIR"):
        raise error


def test_a_lost_table_is_named(tmp_path: Path) -> None:
    import shutil

    create_index(tmp_path / "index").add(documents(10), Cheap())
    shutil.rmtree(tmp_path / "index" / "documents.lance")
    with pytest.raises(InputError, match="has lost its table of documents"):
        open_index(tmp_path / "index").get(["d1"])


def test_changes_leave_no_old_files_behind(tmp_path: Path) -> None:
    def size() -> int:
        return sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())

    index = create_index(tmp_path)
    index.add(documents(), Cheap())
    first = size()
    for _ in range(3):
        index.add([Item("d1", f"changed {time.perf_counter()}", lang="eng")], Cheap())
    assert size() < 1.3 * first


def test_metadata_alone_is_a_change() -> None:
    index = create_index("memory://")
    index.add([Item("a", "text", meta={"year": 1})], Cheap())
    assert index.add([Item("a", "text", meta={"year": 2})], Cheap()) == 1
    assert index.get(["a"])[0].meta == {"year": 2}
    assert index.search(["text"], 1, where={"year": 2})["1"][0].id == "a"


def test_progress_counts_stored_items_too() -> None:
    index = create_index("memory://")
    index.add(documents(600), Cheap())
    seen: list[int] = []
    index.add(documents(1100), Cheap(), progress=seen.append)
    assert seen == [
        512,
        601,
        1024,
        1100,
    ]  # the first that is new goes alone, and tells how fast the encoder is


def test_vectors_made_elsewhere() -> None:
    items = documents(50)
    vectors = np.concatenate([batch.vectors for batch in Cheap().encode(items, "document")])
    index = create_index("memory://")
    assert index.add_vectors(items, vectors, Cheap().spec) == 50
    assert index.add(items, Cheap()) == 0
    assert index.search([items[7]], 1)["d7"][0].id == "d7"
    with pytest.raises(InputError, match="cannot have vectors of shape"):
        index.add_vectors(items, vectors[:3], Cheap().spec)
    with pytest.raises(InputError, match="do not fit into float16"):
        create_index("memory://").add_vectors(items, vectors * 1e6, Cheap().spec)


def clusters(count: int, dim: int = 32) -> tuple[list[Item], np.ndarray]:
    """Vectors in clusters, as texts have them, one language keeping 5% of the rows."""
    random = np.random.default_rng(3)
    centres = random.standard_normal((50, dim))
    vectors = unit(centres[random.integers(50, size=count)] + 0.7 * random.standard_normal((count, dim)))
    return [Item(f"d{n}", f"w{n}", lang="swa" if n % 20 == 0 else "eng") for n in range(count)], vectors


class Given(Cheap):
    """Queries whose text is the number of a stored vector, moved a little."""

    def __init__(self, vectors: np.ndarray) -> None:
        super().__init__(vectors.shape[1])
        self.vectors = vectors

    def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
        for item in items:
            noise = np.random.default_rng(int(item.text or 0)).standard_normal(self.spec.dim)
            vector = self.vectors[int(item.text or 0)] + 0.05 * noise
            yield Dense([item.id], unit(vector[None]))


@pytest.mark.parametrize("kind", ["IVF_FLAT", "IVF_RQ", "IVF_PQ", "IVF_HNSW_SQ"])
def test_approximate_search_reports_the_recall_that_it_has(kind: str, tmp_path: Path) -> None:
    items, vectors = clusters(4000)
    index = create_index(tmp_path, lexical=False)
    index.add_vectors(items, vectors, Cheap(32).spec)
    recall = index.build(kind)
    assert recall.kind == kind
    assert recall.queries == 100
    assert recall.at[10] >= 0.95
    again = open_index(tmp_path, encoders=Given(vectors))
    plan = again.card.spaces[0].ann
    assert plan is not None
    assert plan.kept == 0.05
    assert plan.filtered is not None
    assert plan.filtered >= 0.95
    queries = [Item(f"q{n}", str(n), lang=items[n].lang) for n in range(5, 4000, 100)]
    for where in (None, {"lang": "swa"}):
        exact = again.search(queries, 10, where=where, exact=True)
        found = again.search(queries, 10, where=where)
        shared = [len(dict(found[q.id]).keys() & dict(exact[q.id]).keys()) / 10 for q in queries]
        assert np.mean(shared) >= 0.93
        for query in queries:  # and the scores of what is found are exact
            common = dict(found[query.id]).keys() & dict(exact[query.id]).keys()
            truth = dict(exact[query.id])
            assert {doc: dict(found[query.id])[doc] for doc in common} == pytest.approx(
                {doc: truth[doc] for doc in common}, abs=1e-3
            )
    assert again.build("none").kind == "flat"
    assert open_index(tmp_path).card.spaces[0].ann is None


def test_auto_is_exact_for_few_and_approximate_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    items, vectors = clusters(3000)
    index = create_index("memory://", lexical=False)
    index.add_vectors(items, vectors, Cheap(32).spec)
    assert index.build("auto").kind == "flat"
    monkeypatch.setattr(ann, "AUTO_FROM", 3000)
    recall = index.build("auto")
    assert recall.kind == "IVF_RQ"
    assert recall.at[10] >= 0.95
    index.add([Item("new", "w", lang="eng")], Cheap(32))
    assert index.card.spaces[0].ann is None  # the vectors have changed: exact until it is built again
    assert index.build("auto").kind == "IVF_RQ"


def test_approximate_search_needs_enough_vectors_and_a_known_kind() -> None:
    index = create_index("memory://")
    index.add(documents(20), Cheap())
    with pytest.raises(InputError, match="20 vectors are too few for IVF_PQ"):
        index.build("IVF_PQ")
    with pytest.raises(InputError, match="unknown kind of approximate index 'ivf_pq'"):
        index.build("ivf_pq")


def test_language_correction_is_applied_and_can_be_left_out() -> None:
    """Languages in cones: uncorrected, a query finds its own language; corrected, it finds its topic."""
    random = np.random.default_rng(0)
    topics, cones = unit(random.standard_normal((20, 32))), 3 * unit(random.standard_normal((4, 32)))
    items = [Item(f"{lang}{t}", "w", lang=lang) for lang in ("eng", "zho", "fas", "rus") for t in range(20)]
    vectors = unit(np.concatenate([topics + cone for cone in cones]))

    class Cones(Cheap):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
            for item in items:
                yield Dense([item.id], unit((topics[int(item.text or 0)] + cones[0])[None]))

    spec = Cones(32).spec
    index = create_index("memory://")
    index.add_vectors(items, vectors, spec)
    index._encoders[spec.fingerprint] = Cones(32)
    queries = [Item(f"q{t}", str(t), lang="eng") for t in range(20)]

    def topical(correct: bool) -> float:
        run = index.search(queries, 4, correct=correct)
        return float(np.mean([hit.id[3:] == query.text for query, hits in run for hit in hits]))

    assert topical(correct=True) > 0.95
    assert topical(correct=False) < 0.5


def test_openings_of_documents_tell_what_queries_have_in_common(tmp_path: Path) -> None:
    """Queries in a cone that no document is in, as short texts are: the index learns it from its documents' openings."""
    random = np.random.default_rng(0)
    topics = unit(random.standard_normal((20, 32)))
    cones = dict(zip(("zho", "fas"), 3 * unit(random.standard_normal((2, 32))), strict=True))
    common = 3 * unit(cones["zho"] + 6 * topics[0])[None]  # it draws queries to one document

    class Opening(Cheap):
        asked: ClassVar[list[str]] = []

        def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
            for item in items:
                text = item.text or ""
                if role == "query":
                    self.asked.append(text)
                cone = common if role == "query" else cones[item.lang or ""]
                yield Dense([item.id], unit(topics[int(text.split()[0])] + cone).reshape(1, -1))

    items = [Item(f"{lang}{t}", f"{t} {'x' * 300}\nand more", lang=lang) for lang in cones for t in range(20)]
    index = create_index(tmp_path / "index")
    index.add(items, Opening(32))
    assert len(Opening.asked) == 40
    assert {len(text) for text in Opening.asked} == {200}

    queries = [Item(f"q{t}", str(t), lang="eng") for t in range(20)]
    run = open_index(tmp_path / "index", encoders=Opening(32)).search(queries, 2)
    assert np.mean([hit.id[3:] == query.text for query, hits in run for hit in hits]) > 0.95
    index._moments[index.card.spaces[0].fingerprint]._asked.clear()  # as of documents
    run = index.search(queries, 2)
    assert np.mean([hit.id[3:] == query.text for query, hits in run for hit in hits]) < 0.8


def test_few_openings_stand_for_many_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "OPENINGS", 8)
    asked: list[str] = []

    class Asked(Cheap):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
            items = list(items)
            asked.extend(item.text or "" for item in items if role == "query")
            yield from super().encode(items, role)

    chosen = []
    for order in (documents(90), documents(90)[::-1]):
        create_index("memory://").add(order, Asked())
        chosen.append(sorted(asked))
        asked.clear()
    assert chosen[0] == chosen[1]  # whatever the order in which they came
    assert len(chosen[0]) == 3 * 8


def test_openings_are_encoded_once(tmp_path: Path) -> None:
    asked: list[str] = []

    class Asked(Cheap):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
            items = list(items)
            asked.extend(item.text or "" for item in items if role == "query")
            yield from super().encode(items, role)

    create_index(tmp_path / "index").add(documents(30), Asked())
    assert len(asked) == 30
    asked.clear()
    more = [*documents(30), Item("new", "another text", lang="zho")]
    grown = create_index(tmp_path / "index")
    assert grown.add(more, Asked()) == 1
    assert sorted(asked) == sorted(
        item.text or "" for item in more if item.lang == "zho"
    )  # the others are known
    whole = create_index("memory://")
    whole.add(more, Asked())
    for lang in ("eng", "zho", "fas"):
        mine, theirs = (each._moment(each.card.spaces[0]).asked(lang, "text") for each in (grown, whole))
        np.testing.assert_array_equal(mine, theirs)


def test_unknown_kinds_of_index_are_named() -> None:
    with pytest.raises(InputError, match=r"unknown index kind 'lnace'; did you mean lance\?"):
        create_index("memory://", kind="lnace")
    with pytest.raises(InputError, match="nothing after the colon"):
        index_class("lance:")


if __name__ == "__main__":
    if sys.argv[2:] == ["limited"]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        try:
            main(sys.argv[1])
        except InputError as error:
            print("failed:", error)
            sys.exit(2)
    else:
        main(sys.argv[1])
