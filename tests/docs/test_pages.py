"""The pages of README and docs/: links lead somewhere, tables are those of the files, all public names are described."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import tomllib
import unicodedata

import crosslens
import pytest
from stand_ins.table import table

from .pages import FENCE, PAGES, ROOT, name_page, read_blocks

CODE = re.compile(r"`[^`]*`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
OBJECT = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
HOSTS = re.compile(r"pypi\.|pythonhosted|download\.pytorch\.org|npmjs|conda\.anaconda|crates\.io")
# Words that readers from elsewhere stumble over, and what reads as poetry.
WORDS = re.compile(r"\b(anew|tells|told|mends?|mended|whilst|thereof|hitherto)\b|, say\b|here and there")
# What people subclass, or pass, beside the public names.
BASES = (
    "crosslens.indexes.kinds.base.Kind",
    "crosslens.media.modalities.Medium",
    "crosslens.multilingual.collections.base.check_collection",
    "crosslens.multilingual.judges.BaseJudge",
    "crosslens.multilingual.prompts.Prompt",
    "crosslens.multilingual.reranking.sorters.Sorter",
)


@pytest.fixture
def measurements(monkeypatch):
    """`benchmarks/measurements.py`, imported as scripts import it."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("measurements")


def read_anchors(page):
    """What a link to a page may name: its headings as mkdocs writes them, and the names that it describes."""
    text = page.read_text("utf-8")
    prose = FENCE.sub("", text)
    anchors = set(OBJECT.findall(text))
    for heading in HEADING.findall(prose):
        plain = unicodedata.normalize("NFKD", heading.replace("`", "")).encode("ascii", "ignore").decode()
        plain = re.sub(r"[^\w\s-]", "", plain).strip().lower()
        anchors.add(re.sub(r"[-\s]+", "-", plain))
    return anchors


@table("page", PAGES)
def test_links_lead_somewhere(page):
    prose = CODE.sub("", FENCE.sub("", page.read_text("utf-8")))
    for link in LINK.findall(prose):
        if re.match(r"https?://", link):
            assert re.match(r"https://(arxiv\.org|[\w.-]*github\.com)/", link), link
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{name_page(page)}: {link}"
        assert not anchor or anchor in read_anchors(target), f"{name_page(page)}: {link}"


@table("page", PAGES)
def test_words_are_plain_and_no_registry_is_named(page):
    text = page.read_text("utf-8")
    assert not HOSTS.findall(text)
    assert not [found[0] for found in WORDS.finditer(CODE.sub("", FENCE.sub("", text)))]


def test_tables_are_those_of_the_files(measurements):
    stale = [name_page(page) for page in measurements.find_stale()]
    assert not stale, "run `python benchmarks/measurements.py` and commit what it writes"


def test_every_file_of_measurements_is_shown_and_says_how_it_came_to_be():
    shown = set()
    for page in PAGES:
        shown |= set(re.findall(r"<!-- measured: ([\w-]+) -->", page.read_text("utf-8")))
    files = {path.stem: json.loads(path.read_text("utf-8")) for path in ROOT.glob("docs/measured/*.json")}
    assert shown == files.keys()
    for name, record in files.items():
        assert re.fullmatch(r"[0-9a-f]{7,40}\+?", record["commit"]), name
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"]), name
        assert record["cpu"], name
        assert record["tables"], name
        script = record["command"].split()[1]
        assert (ROOT / script).is_file(), name
        assert all(len(row) == len(table["columns"]) for table in record["tables"] for row in table["rows"]), name


def test_every_public_name_is_described_once():
    described = [name for page in PAGES for name in OBJECT.findall(page.read_text("utf-8"))]
    wanted = [*(f"crosslens.{name}" for name in crosslens.__all__), *BASES]
    assert [name for name in wanted if described.count(name) != 1] == []
    for name in described:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_every_extra_is_described():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    table = (ROOT / "docs/getting-started.md").read_text("utf-8").partition("### Extras")[2].partition("\n#")[0]
    assert set(re.findall(r"`([\w-]+)`", "".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE)))) == extras.keys()


def test_the_layers_of_the_design_are_those_that_are_kept():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    kept = [layer for layer in contracts[0]["layers"] if not layer.startswith("(")]
    block = next(each for each in read_blocks(ROOT / "docs/design.md") if "commands/" in each.text)
    shown = [re.split(r"\W", line)[0] for line in block.text.splitlines()]
    assert shown == kept


def test_the_site_fetches_nothing():
    config = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert "font: false" in config
    texts = [path for path in (ROOT / "docs/assets").iterdir() if path.suffix != ".png"]
    for path in [ROOT / "mkdocs.yml", *texts]:
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", path.read_text("utf-8")), path


def test_pages_that_code_cites_are_there():
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "grep", "-InoE", r"docs/[a-z/-]+\.md(,? \(?section [0-9]+)?", "--", "*.py", "*.toml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    sections = re.findall(r"^## (\d+)\.", (ROOT / "docs/design.md").read_text("utf-8"), re.MULTILINE)
    for line in listed.stdout.splitlines():
        cited = line.split(":", 2)[2]
        page, _, section = cited.partition(" ")
        assert (ROOT / page.rstrip(",")).is_file(), line
        assert not section or section.rpartition(" ")[2] in sections, line
