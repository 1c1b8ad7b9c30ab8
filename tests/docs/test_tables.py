"""Tables of families, stages, prompts, sorters and options: each is what the code has, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path

from crosslens.encoders.registry import FAMILIES as ENCODERS
from crosslens.encoders.registry import OFFLINE
from crosslens.evaluation.experiment.plan import Plan
from crosslens.indexes.registry import KINDS
from crosslens.multilingual.collections.registry import FAMILIES as COLLECTIONS
from crosslens.multilingual.collections.registry import KINDS as PATHS
from crosslens.multilingual.judges import JUDGES
from crosslens.multilingual.prompts.files import list_prompts
from crosslens.multilingual.reranking.plan import parse_reranker
from crosslens.multilingual.reranking.registry import SORTERS, find_sorter
from crosslens.multilingual.rewriting.plan import REWRITERS
from crosslens.specs import Spec, find_factory, known_options
from crosslens.systems.grammar import FUNCTIONS
from crosslens.systems.stages import STAGES
from crosslens.training.data import generation
from crosslens.training.data.registry import SOURCES
from stand_ins.table import table

from .pages import FENCE, ROOT

GIVEN = {"device", "trust_remote_code", "skip_bad"}  # by the program, not by a SPEC


def read_table(page: str, heading: str) -> list[list[str]]:
    """The cells of the table on a page whose first column has this heading, without its head."""
    text = FENCE.sub("", (ROOT / "docs" / page).read_text("utf-8"))
    table = re.search(rf"^\| {re.escape(heading)} \|.*\n\|[-:| ]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table is not None, heading
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in table[1].splitlines()]


def list_codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def list_own_families(page: str):
    """The rows of a page's table of families, but for that of other packages."""
    return [row for row in read_table(page, "family") if list_codes(row[0]) != ["py:"]]


@table("row", list_own_families("encoders.md"))
def test_options_of_encoders(row):
    ((name,), options) = list_codes(row[0]), list_codes(row[2])
    family, _, checkpoint = name.partition(":")
    known = OFFLINE if family == "offline" else ENCODERS
    factory, _ = find_factory(Spec(checkpoint or family), "encoders", known, "encoder")
    assert set(options) == known_options(getattr(factory, "from_checkpoint", factory)).keys() - GIVEN


def test_families_of_encoders():
    names = [list_codes(row[0])[0] for row in read_table("encoders.md", "family")]
    assert set(names) == {"py:", *(f"{each}:" for each in ENCODERS), *(f"offline:{each}" for each in OFFLINE)}


@table("row", read_table("collections.md", "family"))
def test_options_of_collections(row):
    family = re.split(r"[\[:?]", list_codes(row[0])[0])[0]
    factory, _ = find_factory(Spec(family), "collections", COLLECTIONS, "collection")
    shown = {option.partition("=")[0] for option in list_codes(row[2]) if option != "mlir"}
    assert shown <= known_options(factory).keys()


def test_families_of_collections():
    shown = {re.split(r"[\[:?]", list_codes(row[0])[0])[0] for row in read_table("collections.md", "family")}
    assert shown | set(PATHS) == COLLECTIONS.keys() - {"demo", "irds"}


def test_what_paths_are_taken_for():
    rows = read_table("collections.md", "path")
    assert [list_codes(row[0])[0].rstrip(":") for row in rows] == list(PATHS)
    for family, row in zip(PATHS, rows, strict=True):
        factory, _ = find_factory(Spec(family), "collections", COLLECTIONS, "collection")
        shown = {option.partition("=")[0] for option in list_codes(row[2])}
        assert family == "beir" or shown == known_options(factory).keys() - GIVEN


@table("row", list_own_families("reranking.md"))
def test_options_of_judges(row):
    ((name,), options) = list_codes(row[0]), list_codes(row[2])
    factory, _ = find_factory(Spec(name.rstrip(":")), "judges", JUDGES, "judge")
    assert set(options) == known_options(factory).keys() - GIVEN


def test_options_of_sorters():
    for row in read_table("reranking.md", "sorters"):
        shown = set(list_codes(row[2]))
        known = set().union(*(known_options(find_sorter(name)).keys() for name in list_codes(row[0])))
        assert shown == known, row[0]


def test_sources_of_pairs_and_their_options():
    rows = {list_codes(row[0])[0]: set(list_codes(row[1])) for row in read_table("synthetic.md", "source")}
    prompts = {f"{path.stem}@" for path in Path(generation.__file__).parent.glob("*.toml")}
    assert rows.keys() == prompts | SOURCES.keys()
    own = known_options(generation.configure_generator).keys()
    assert rows["inpars@"] | rows["promptagator@"] == own | {"language", "chat"}
    for name in SOURCES:
        factory, _ = find_factory(Spec(name), "sources", SOURCES, "source")
        assert rows[name] == known_options(factory).keys() - GIVEN, name


def test_defaults_of_rerankers():
    plan = parse_reranker("likelihood@offline:gemma")
    text = (ROOT / "docs" / "reranking.md").read_text("utf-8")
    assert f"`depth` (candidates, {plan.depth}), `k` (how many of the first have to be right, {plan.k})" in text


def test_options_of_rewriters():
    shown = {option for row in read_table("rewriting.md", "option") for option in list_codes(row[0])}
    fields = {name for method in REWRITERS for name in known_options(find_rewriter(method))}
    assert shown == (fields - {"judge", "wording", "languages", "kept"}) | {"lang", "language", "instruction", "chat"}
    rows = {list_codes(row[0])[0]: row[3] for row in read_table("rewriting.md", "method")}
    weights = {method: f"{known_options(find_rewriter(method))['weight'].default:g}" for method in REWRITERS}
    assert rows == weights


def find_rewriter(method):
    return find_factory(Spec(method), "rewriters", REWRITERS, "method")[0]


def test_options_of_stages():
    for row in read_table("experiments.md", "stage"):
        for name in list_codes(row[0]):
            if name in STAGES and not STAGES[name].model:
                assert set(list_codes(row[2])) >= known_options(STAGES[name].read).keys(), name
    shown = {name.partition("@")[0] for row in read_table("experiments.md", "stage") for name in list_codes(row[0])}
    assert STAGES.keys() <= shown


def test_functions_of_lines():
    shown = {code.partition("(")[0] for row in read_table("experiments.md", "operator") for code in list_codes(row[0])}
    assert FUNCTIONS.keys() <= shown


def test_keys_of_experiments():
    shown = {key.strip("[]") for row in read_table("experiments.md", "key") for key in list_codes(row[0])}
    assert shown == Plan.__dataclass_fields__.keys()


@table(
    ("page", "heading", "known"),
    [
        ("reranking.md", "prompts", list_prompts()),
        ("reranking.md", "sorters", list(SORTERS)),
        ("reranking.md", "family", [f"{family}:" for family in (*JUDGES, "py")]),
        ("indexes.md", "`--index`", list(KINDS)),
        ("rewriting.md", "method", list(REWRITERS)),
    ],
)
def test_names_are_those_that_there_are(page, heading, known):
    shown = [code for row in read_table(page, heading) for code in list_codes(row[0])]
    assert {each if each.endswith(":") else each.partition(":")[0] for each in shown} == set(known)
