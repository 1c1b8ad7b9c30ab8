"""The makers of benchmark collections, offline: pages as the packages have them, written in the test."""

import gzip
import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import crosslens
import pytest
from crosslens.errors import InputError
from crosslens.runs import read_qrels
from stand_ins.collection_scripts import directory, module
from stand_ins.table import table

FILL = {
    "eng": "This paragraph is long enough to make the page worth a place in the collection, and no repetition: {}.",
    "rus": "Этот абзац достаточно длинный, чтобы страница имела смысл в коллекции, и не повторяется: {}.",
    "zho": "这一段文字足够长，因此该页面值得收入文档集合之中，而且没有重复的内容：{}。",
}


pages, maker = module("help_pages"), module("libreoffice_help")


def html(title: str, body: str, lang: str = "en-US") -> str:
    """A page around `body` with the frame that all of LibreOffice's pages have."""
    return f"""<!DOCTYPE html>
<html lang="{lang}" dir="ltr"><head><base href="../../../../">
<noscript><meta http-equiv="refresh" content="0; URL=../../{lang}/noscript.html"></noscript>
<title>{title}</title><link type="text/css" href="default.css" rel="Stylesheet">
<script type="text/javascript">var hidden = "script words";</script></head>
<body><header id="TopLeftHeader"><a class="logo" href="{lang}/text/shared/05/new_help.html"><p>LibreOffice 7.4 Help</p></a>
<div class="modules"><button type="button">Module</button><nav id="modules-nav"></nav></div></header>
<aside class="leftside"><div id="Index"><input type="search" placeholder="Search in chosen module"></div></aside>
<div id="DisplayArea" itemprop="softwareHelp">
{body}
</div><div id="SearchFrame"></div><div id="DonationFrame">Donate</div>
<footer><div id="DEBUG" class="debug"><h3 class="bug">Help content debug info:</h3><p>This page is: x.xhp</p></div></footer>
</body></html>"""


def read(body: str, path: str = "swriter/guide/page.html", title: str = "A Title"):
    return pages.read_page(html(title, body), path)


def test_a_page_is_its_display_area_without_navigation():
    page = read(
        """<h1 id="hd_1"><a name="x"></a>A Title</h1>
        <p class="paragraph">Choose <span class="emph">Data</span> &amp; <a target="_top"
          href="en-US/text/scalc/guide/one.html#there">this<br></a> now.<img alt="Icon" src="i.svg"></p>
        <ol><li><p class="listitem">First  step.</p></li><li>Bare step</li></ol>
        <div class="howtoget"><p class="howtogetheader">To access this command...</p>
          <p>Choose <a href="en-US/text/shared/menu/menu.html">Menu</a>.</p></div>
        <div class="bascode"><pre><code>Sub Main\n  Print "a  b"\n\nEnd Sub</code></pre></div>
        <p class="code">=SUM(A1)</p>
        <div class="note"><div class="noteicon"><img alt="note"></div><div class="notetext"><p>Beware.</p></div></div>
        <p class="paragraph"><a href="en-US/text/scalc/guide/two.html">Two</a></p>
        <p><a href="https://example.org/text/no.html">out</a> of here, <a href="en-US/text/swriter/guide/page.html">self</a></p>
        <div class="relatedtopics"><p class="related">Related Topics</p>
          <p class="embedded"><a href="en-US/text/scalc/01/three.html">Three</a></p></div>"""
    )
    assert page.title == "A Title"
    assert [(block.kind, block.text, block.section) for block in page.blocks] == [
        ("heading", "A Title", ""),
        ("prose", "Choose Data & this", ""),
        ("prose", "now.", ""),
        ("prose", "First step.", ""),
        ("prose", "Bare step", ""),
        ("prose", "Choose Menu.", "howtoget"),
        ("code", 'Sub Main\n  Print "a  b"\nEnd Sub', ""),
        ("code", "=SUM(A1)", ""),
        ("prose", "Beware.", ""),
        ("prose", "out of here, self", ""),
    ]
    assert page.text.startswith("Choose Data & this\n")
    assert page.links == {"scalc/guide/one.html", "scalc/guide/two.html", "scalc/01/three.html"}
    assert not page.is_navigation


def test_a_first_heading_that_says_more_than_the_title_stays():
    assert read("<h1>Another Heading</h1><p>Text.</p>").text == "Another Heading\nText."


SYSTEMS = """<p>Press <span class="switchinline"><span hidden="true" id="MACx" class="MAC">Command</span><span
    hidden="true" id="defaultx">Ctrl</span></span>+<span class="switch"><span hidden="true" id="WRITERx"
    class="WRITER">W</span><span hidden="true" id="CALCx" class="CALC">C</span><span hidden="true"
    id="defaultx2">D</span></span>.</p>"""


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("swriter/01/a.html", "Press Ctrl+W."),
        ("scalc/01/a.html", "Press Ctrl+C."),
        ("sdraw/01/a.html", "Press Ctrl+D."),
        ("shared/01/a.html", "Press Ctrl+W."),
    ],
)
def test_one_variant_of_a_switch_is_read(path: str, shown: str):
    assert read(SYSTEMS, path).text == shown


@table(
    ("body", "sentence"),
    [
        ("<p>Too short.</p><p>Opens the dialog, e.g. On screen. Then more.</p>", "Opens the dialog, e.g. On screen."),
        ("<p>A line without a stop follows here</p><p>Is this really the first one? Yes.</p>", "Is this really the first one?"),
        ("<h2>A heading is no sentence here.</h2><p>Use version 7.4 of the program.</p>", "Use version 7.4 of the program."),
        ('<div class="howtoget"><p>Choose the menu and then this.</p></div>', None),
        ('<p class="code">Print this and that now.</p>', None),
    ],
)  # fmt: skip
def test_the_first_sentence(body: str, sentence: str | None):
    assert read(body).sentence == sentence


def test_pages_that_lead_elsewhere_are_navigation():
    entry = '<h2><a href="en-US/text/swriter/01/{0}.html">Entry {0}</a></h2><p>Does {0}.</p>'
    assert read("<h1>A Title</h1>" + entry.format(1) + entry.format(2) + "<h2>Other</h2>").is_navigation
    assert not read("<h1>A Title</h1>" + entry.format(1) + "<h2>Other</h2><h2>More</h2><h2>Most</h2>").is_navigation
    items = "".join(f'<p><a href="en-US/text/swriter/01/{n}.html">Entry {n}</a></p>' for n in range(9))
    assert read("<p>A list.</p>" + items).is_navigation
    assert not read("<p>Words.</p>" * 12 + items).is_navigation


def test_no_help_page_is_an_error():
    with pytest.raises(InputError, match=r"a/b\.html: not a page of LibreOffice's help"):
        pages.read_page("<html><title>T</title><body><p>x</p></body></html>", "a/b.html")


@pytest.mark.parametrize(
    ("langs", "expected"),
    [
        ("zho,rus", {"rus": "ru", "zho": "zh-cn"}),
        ("zh-TW, German", {"deu": "de", "zho": "zh-tw"}),
        ("pt_br", {"por": "pt-br"}),
    ],
)
def test_languages(langs: str, expected: dict[str, str]):
    assert maker.chosen(langs) == expected


@pytest.mark.parametrize(
    ("langs", "complaint"),
    [
        ("pt,pt-br", "pt and pt-br are both por"),
        ("swa", r"Debian has no libreoffice-help in Swahili .*rus"),
        ("eng", "Debian has no libreoffice-help in English"),
        ("", "no languages"),
    ],
)
def test_languages_that_cannot_be_had(langs: str, complaint: str):
    with pytest.raises(InputError, match=complaint):
        maker.chosen(langs)


# path -> language -> title, body without the filling paragraph
LINKS = '<p class="related"><a href="en-US/text/scalc/guide/sort.html">s</a> <a href="en-US/text/scalc/guide/left.html">l</a></p>'
HELP: dict[str, dict[str, tuple[str, str]]] = {
    "scalc/guide/filter.html": {
        "eng": ("Applying Automatic Filters", "<p>You can filter rows by their values. More follows.</p><p>Click the little arrow button.</p>" + LINKS.replace(' class="related"', "")),
        "rus": ("Применение фильтров", "<p>Можно отфильтровать строки по значениям.</p><p>Click the little  arrow button.</p>"),
        "zho": ("应用自动筛选", "<p>您可以按值筛选行。</p>"),
    },
    "scalc/guide/sort.html": {
        "eng": ("Sorting Many Columns", "<p>You can sort rows by several columns.</p>"),
        "rus": ("Сортировка столбцов", "<p>Строки можно сортировать по столбцам.</p>"),
        "zho": ("Sorting Many Columns", "<p>您可以按多列排序。</p>"),  # the title is still English
    },
    "scalc/guide/left.html": {
        "eng": ("Leaving Things Out", "<p>You can leave the sentence in English.</p>"),
        "rus": ("Пропуск", "<p>You can leave the sentence in English.</p>"),  # the first sentence is still English
        "zho": ("省略内容", "<p>您可以省略内容和句子。</p>"),
    },
    "scalc/guide/twin1.html": {
        "eng": ("Two Same Titles", "<p>The first of two pages of one title.</p>"),
        "rus": ("Одно название", "<p>Первая из двух страниц.</p>"),
    },
    "scalc/guide/twin2.html": {
        "eng": ("Two same titles", "<p>The second of two pages of one title.</p>"),
        "rus": ("Одно название", "<p>Вторая из двух страниц.</p>"),
    },
    "scalc/01/imsin.html": {
        "eng": ("IMSIN Function", "<p>Returns the sine of a complex number.</p>"),
        "rus": ("Функция IMSIN", "<p>Возвращает синус комплексного числа.</p>"),
    },
    "scalc/01/german.html": {
        "eng": ("Showing Another Language", "<p>This page has the wrong language there.</p>"),
        "rus": ("Eine andere Sprache", "<p>Diese Seite wurde aus Versehen auf Deutsch geschrieben, obwohl sie russisch sein sollte.</p>"),
    },
    "scalc/00/fragments.html": {
        "eng": ("Pieces Embedded Elsewhere", "<p>This sentence is embedded in other pages.</p>"),
        "rus": ("Фрагменты", "<p>Это предложение встроено в другие страницы.</p>"),
    },
}  # fmt: skip


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`download` and `unpack` give the pages of `HELP` instead of Debian's."""
    folders = {"eng": "en-US", "rus": "ru", "zho": "zh-CN"}

    def download(names: list[str], folder: Path) -> dict[str, object]:
        assert names == ["libreoffice-help-en-us", "libreoffice-help-ru", "libreoffice-help-zh-cn"]
        return {name: maker.Package(name, "7.4", "0" * 64, folder / name) for name in names}

    def unpack(package: object, folder: Path) -> None:
        lang = folder.name
        for path, versions in HELP.items():
            title, body = versions.get(lang, versions["eng"])
            fill = "" if "german" in path and lang == "rus" else f"<p>{FILL[lang].format(path[:-5])}</p>"
            if lang not in versions:
                fill = f"<p>{FILL['eng'].format(path[:-5])}</p>"
            page = folder / "usr/share/libreoffice/help" / folders[lang] / "text" / path
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(html(title, f"<h1>{title}</h1>{body}{fill}", folders[lang]), "utf-8")

    monkeypatch.setattr(maker, "download", download)
    monkeypatch.setattr(maker, "unpack", unpack)


LANGS = {"rus": "ru", "zho": "zh-cn"}


def test_the_whole_collection(tmp_path: Path, packages: None):
    card = maker.build(tmp_path / "help", LANGS, "title", None)
    whole = crosslens.collection(tmp_path / "help")
    counts = whole.check()
    docs = {doc.id: doc for doc in whole.docs()}
    assert list(docs) == [
        "rus/scalc/01/imsin", "rus/scalc/guide/filter", "rus/scalc/guide/sort", "rus/scalc/guide/twin1",
        "rus/scalc/guide/twin2", "zho/scalc/guide/filter", "zho/scalc/guide/left",
    ]  # fmt: skip
    assert {doc.lang for doc in docs.values()} == {"rus", "zho"}
    text = docs["rus/scalc/guide/filter"].text or ""
    assert text.startswith("Применение фильтров\nМожно отфильтровать")
    assert "arrow" not in text  # a paragraph left in English is not in the document

    queries = {query.id: query for query in whole.queries()}
    assert {id: query.text for id, query in queries.items()} == {
        "scalc/guide/filter": "Applying Automatic Filters",
        "scalc/guide/left": "Leaving Things Out",
        "scalc/guide/sort": "Sorting Many Columns",
    }
    assert {query.lang for query in queries.values()} == {"eng"}
    sentences = {query.id: query.text for query in whole.queries(fields="description")}
    assert sentences["scalc/guide/filter"] == "You can filter rows by their values."
    assert whole.qrels() == {
        "scalc/guide/filter": {
            "rus/scalc/guide/filter": 3, "rus/scalc/guide/sort": 1,
            "zho/scalc/guide/filter": 3, "zho/scalc/guide/left": 1,
        },
        "scalc/guide/left": {"zho/scalc/guide/left": 3},
        "scalc/guide/sort": {"rus/scalc/guide/sort": 3},
    }  # fmt: skip
    assert read_qrels(tmp_path / "help" / "qrels.txt")[1]["zho/scalc/guide/left"] == "zho"

    assert card == json.loads((tmp_path / "help" / "card.json").read_text("utf-8"))
    assert card["documents"] == {"rus": 5, "zho": 2} == dict(sorted(counts.langs.items()))
    assert card["all"]["judgements"] == counts.judged == 6
    assert card["all"]["by language"]["rus"] == {"topics": 2, "grade 3": 2, "grade 1": 1}
    assert card["pages left out"]["rus"] == {
        "another language": 1, "first sentence not translated": 1, "fragments that other pages embed": 1,
    }  # fmt: skip
    assert card["pages left out"]["zho"]["title not translated"] == 5  # `sort`, and four that Chinese lacks
    assert card["topics left out"] == {"several pages have the title": 2, "title of one word or a name": 1}
    assert card["English paragraphs removed"] == {"rus": 1, "zho": 0}
    read_me = (tmp_path / "help" / "README.txt").read_text("utf-8")
    assert "by no person" in read_me
    assert f"  zho: {card['dev']['by language']['zho']['topics']} topics in dev, " in read_me
    assert f"  libreoffice-help-ru 7.4\n    sha256 {'0' * 64}\n" in read_me


def test_halves_are_collections_of_the_same_documents(tmp_path: Path, packages: None):
    maker.build(tmp_path / "help", LANGS, "sentence", None)
    whole = crosslens.collection(tmp_path / "help")
    asked: list[str] = []
    for half in ("dev", "test"):
        assert (tmp_path / "help" / half / "docs.jsonl.gz").samefile(tmp_path / "help" / "docs.jsonl.gz")
        lines = (tmp_path / "help" / half / "topics.jsonl").read_text("utf-8").splitlines()
        ids = [json.loads(line)["id"] for line in lines]
        assert all(directory.half_of(id) == half for id in ids)
        asked += ids
        if ids:
            part = crosslens.collection(tmp_path / "help" / half)
            part.check()
            assert part.qrels() == {id: grades for id, grades in whole.qrels().items() if id in ids}
    assert sorted(asked) == [query.id for query in whole.queries()]
    assert next(iter(whole.queries())).text == "You can filter rows by their values."


def test_the_same_bytes_again_and_nothing_overwritten(tmp_path: Path, packages: None):
    for name in ("one", "two"):
        maker.build(tmp_path / name, LANGS, "title", None)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) == 3 * 3 + 2
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file
    with pytest.raises(InputError, match="one is there already"):
        maker.build(tmp_path / "one", LANGS, "title", None)


def test_a_failed_build_leaves_nothing(tmp_path: Path, packages: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(maker, "LEAST_TRANSLATED", 10_000)
    with pytest.raises(InputError, match="no translated page in rus, zho"):
        maker.build(tmp_path / "help", LANGS, "title", None)
    assert list(tmp_path.iterdir()) == []


def test_smaller_samples_are_parts_of_larger_ones():
    topics = [directory.Topic({"id": f"page/{n}"}, []) for n in range(400)]
    halves = Counter(directory.half_of(topic.id) for topic in topics)
    assert min(halves.values()) > 150
    small, large = ([topic.id for topic in directory.sampled(topics, most)] for most in (10, 100))
    assert set(small) < set(large)
    assert Counter(map(directory.half_of, small)) == {"dev": 10, "test": 10}
    assert small == sorted(small)
    assert directory.sampled(topics, None) == sorted(topics, key=lambda topic: topic.id)


def test_documents_are_packed_without_the_time(tmp_path: Path):
    directory.write_docs(tmp_path, [{"id": "a", "text": "я"}])
    assert (tmp_path / "docs.jsonl.gz").read_bytes()[4:8] == b"\0\0\0\0"
    assert json.loads(gzip.decompress((tmp_path / "docs.jsonl.gz").read_bytes())) == {"id": "a", "text": "я"}


def test_commands_that_fail_or_are_not_there():
    debian = module("debian_packages")
    with pytest.raises(InputError, match="there is no no-such-program here"):
        debian.output(["no-such-program"])
    with pytest.raises(InputError, match="sh failed: E: what went wrong"):
        debian.output(["sh", "-c", "echo W: no matter >&2; echo E: what went wrong >&2; exit 100"])


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_a_package_is_named_hashed_and_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    debian = module("debian_packages")
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: some-help\nVersion: 4:7.4-1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: help\n"
    )
    (tree / "usr").mkdir()
    (tree / "usr" / "page.html").write_text("text")
    (folder := tmp_path / "packages").mkdir()
    built = folder / "some-help_4%3a7.4-1_all.deb"
    real = debian.output

    def without_network(command: list[str], where: Path | None = None) -> str:
        if command[0] != "apt-get":
            return str(real(command, where))
        if command[-1] == "some-help":
            subprocess.run(
                ["dpkg-deb", "--build", "--root-owner-group", str(tree), str(built)], check=True, capture_output=True
            )
        return ""

    monkeypatch.setattr(debian, "output", without_network)
    package = debian.download(["some-help"], folder)["some-help"]
    assert (package.name, package.version) == ("some-help", "4:7.4-1")
    summed = subprocess.run(["sha256sum", str(built)], check=True, capture_output=True, text=True).stdout
    assert package.sha256 == summed.split()[0]
    debian.unpack(package, tmp_path / "out")
    assert (tmp_path / "out" / "usr" / "page.html").read_text() == "text"
    with pytest.raises(InputError, match="no package other-help"):
        debian.download(["other-help"], folder)
