"""The registry of stages: what a SPEC in a line stands for, from crosslens or from another package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from crosslens import InputError, Item, Run, create_index
from crosslens.pipeline import Cut
from crosslens.systems.search import search_index
from crosslens.systems.stages import STAGES, Vocabulary, read_stage
from crosslens.systems.system import OpenSite, System
from stand_ins.table import table

MODULE = """
from collections import Counter
from dataclasses import dataclass

from crosslens import Run, Stage
from crosslens.systems.stages import Unbound


@dataclass(frozen=True)
class Reverse(Stage):
    \"\"\"Turns the ranking of every query round; `keep` leaves the first so many where they are.\"\"\"

    keep: int = 0

    def apply(self, run: Run, count: Counter[str]) -> Run:
        turned = {}
        for query, hits in run.hits.items():
            ids = [hit.id for hit in hits]
            ids = ids[: self.keep] + ids[self.keep :][::-1]
            turned[query] = [(id, -float(rank)) for rank, id in enumerate(ids)]
        return run.ranking(turned)


@dataclass(frozen=True)
class Opaque(Reverse):
    how: object = object()


class Plain(Stage):
    def apply(self, run: Run, count: Counter[str]) -> Run:
        raise AssertionError


def late() -> Unbound:
    return Unbound("late", lambda site, k: Opaque())


def no_stage(*, size: int = 1) -> int:
    return size
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed package with a stage and an entry point for it; gives the name of its module."""
    (tmp_path / "turning_stages.py").write_text(MODULE)
    info = tmp_path / "turning_stages-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: turning-stages\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[crosslens.stages]\nreverse = turning_stages:Reverse\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "turning_stages", raising=False)
    return "turning_stages"


@pytest.mark.parametrize("family", ["py:turning_stages:Reverse", "reverse"])
def test_a_stage_of_another_package_works_in_a_line(package: str, family: str) -> None:
    first = Run.of(["x"]).ranking({"1": [("a", 3.0), ("b", 2.0), ("c", 1.0)]})
    for line, ids in ((family, "cba"), (f"{family}?keep=1", "acb"), (f"{family} % 2 >> {family}", "bc")):
        system = System.parse(line)
        assert [part.spec for part in system.parts] == [each for each in line.split() if each.startswith(family)]
        bound = system.bind(OpenSite(), 10)
        assert "".join(hit.id for hit in bound(first)["1"]) == ids, line
    with pytest.raises(InputError, match="did you mean keep"):
        System.parse(f"{family}?kep=1")


@table(
    ("line", "message"),
    [
        ("py:turning_stages", "write py:MODULE:NAME"),
        ("py:turning_stages:Revers", "cannot import turning_stages:Revers"),
        ("py:no_such_module:X", "cannot import no_such_module:X"),
        ("py:turning_stages:no_stage?size=3", "makes a int, which is no Stage"),
        ("revers", "did you mean reverse?"),
        ("py:turning_stages:Opaque", "py:turning_stages:Opaque: object has no stable description: give it a `fing"),
        ("py:turning_stages:Plain", "py:turning_stages:Plain: Plain is no dataclass and has no stable description"),
    ],
)
def test_what_is_wrong_with_a_stage_of_another_package(package: str, line: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        System.parse(line)
    assert message in str(error.value)


def test_what_is_made_late_is_described_before_any_work(package: str) -> None:
    with pytest.raises(InputError, match="^late: object has no stable description"):
        System.parse("py:turning_stages:late").bind(OpenSite(), 10)


def test_every_stage_has_a_name_that_is_listed_when_it_is_unknown() -> None:
    with pytest.raises(InputError) as error:
        read_stage("nothing", Vocabulary())
    assert all(name in str(error.value) for name in STAGES if name != "default")


@pytest.mark.parametrize(
    ("line", "mended"),
    [
        ("dense % 10 >> rocchio", "dense % 10 >> rocchio >> lexical"),
        ("hyde@hf:x >> default", "hyde@hf:x >> rrf(dense, lexical) >> default"),
        ("rrf(dense >> rm3, lexical)", "rrf(dense >> rm3 >> lexical, lexical)"),
        ("rrf(dense, dense >> rm3?docs=2) % 5 >> lexical", "rrf(dense, dense >> rm3?docs=2 >> lexical) % 5"),
    ],
)
def test_queries_are_rewritten_for_a_search_that_follows_in_the_same_branch(line: str, mended: str) -> None:
    with pytest.raises(InputError, match="changes what is searched for, and no search follows it") as error:
        System.parse(line)
    assert "\n" not in str(error.value)
    assert System.parse(mended).parts


def test_a_stage_of_another_package_may_search_for_what_was_rewritten(package: str) -> None:
    assert System.parse("dense >> rocchio >> reverse").parts


def test_a_model_that_a_stage_does_not_have_is_refused() -> None:
    with pytest.raises(InputError, match="the stage rm3 has no model: leave out @offline:gemma"):
        System.parse("dense >> rm3@offline:gemma >> lexical")


def test_searches_find_what_the_rest_of_the_line_needs() -> None:
    for line, depth in (
        ("dense", 10),
        ("dense % 200 >> likelihood@offline:gemma?depth=20", 200),
        ("dense >> likelihood@offline:gemma?depth=50", 50),
        ("rrf(dense, lexical) % 5", 10),
    ):
        system = System.parse(line)
        assert system.depth(10) == depth
        assert sum(isinstance(part, Cut) for part in system.stage.parts) == line.count("%")


def test_a_language_in_the_line_joins_those_of_the_filter_however_they_are_written() -> None:
    index = create_index("memory://")
    index.add([Item(lang, f"{lang} one", lang=lang) for lang in ("eng", "deu", "fra")])
    for where in ({"lang": "deu"}, {"lang": ["deu"]}):
        search = System.parse("lexical?lang=eng").bind(OpenSite(index, where=where), 10)
        assert {hit.id for hit in search(Run.of(["one"]))["1"]} == {"eng", "deu"}


def test_a_wrong_unseen_is_said_before_an_index_is_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown value of unseen 'drop'"):
        search_index(tmp_path / "no index", [Item("q", "x")], "dense", k=10, unseen="drop")


@pytest.mark.parametrize("value", [{"eng"}, None, b"eng"])
def test_a_filter_that_is_no_value_is_said_to_be_so(tmp_path: Path, value: object) -> None:
    index = create_index(tmp_path / "index")
    index.add([Item("a", "one", lang="eng")])
    with pytest.raises(InputError, match="the filter on 'lang' needs a value, or a list of them"):
        search_index(tmp_path / "index", [Item("q", "one")], "lexical", k=1, where={"lang": value})  # type: ignore[dict-item]
