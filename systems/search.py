"""What the command line and the service search with: from a line, or its shorthand, to a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ..errors import InputError, check_known, list_few
from ..files import check_output, is_stream
from ..indexes.base import Mode
from ..indexes.storage.filters import list_values
from ..multilingual.languages import parse_language
from ..multilingual.reranking.plan import NAMED, parse_reranker
from ..multilingual.reranking.questions import count_questions
from ..pipeline import Progress, show_nothing, watch
from ..runs import EXCLUDED, Exclude, Run, list_excluded
from .provenance import describe_index, describe_items, hide_secrets, provenance
from .system import OpenSite, System
from .trace import Trace

if TYPE_CHECKING:
    from ..indexes.base import Index, Where
    from ..items import Item
    from ..multilingual.collections.base import Collection


def choose_line(
    system: str | None, mode: str, langs: Sequence[str] | None, correct: bool, rerankers: Sequence[str] | None
) -> str:
    """The line of a system: as it was given, or the one that `--mode`, `--lang`, `--no-correction` and `--rerank` mean.

    `InputError` where both are given.
    """
    if system is not None:
        if mode != "hybrid" or langs or not correct or rerankers:
            raise InputError(
                "--system describes the whole system: leave out --mode, --lang, --no-correction and --rerank"
            )
        return system
    check_known(mode, get_args(Mode), "mode")
    codes = ",".join(map(parse_language, langs or ()))
    options = [f"lang={codes}"] * bool(codes) + ["correct=false"] * (not correct)
    head = mode + ("?" + "&".join(options) if options else "")
    return " >> ".join([head, *map(_quote, rerankers or ())])


def search_index(
    directory: str | Path,
    queries: Iterable[Item],
    line: str,
    *,
    k: int,
    topics: Collection | None = None,
    where: Where | None = None,
    exact: bool = False,
    exclude: Exclude = "listed",
    unseen: str = "refuse",
    device: str = "auto",
    trust_remote_code: bool = False,
    journal: Path | None = None,
    progress: Progress = show_nothing,
    trace: Trace | None = None,
    brief: bool = False,
) -> Run:
    """The k best documents of each query, by the system that `line` describes.

    `topics` is the collection whose topics and runs the line may name; `exclude` holds for every search in the line
    that does not choose itself (`runs.list_excluded`). Queries without a collection have no id that a document could
    have: there `self` are the documents with the query's text. `trace` gets what each stage found. `brief` is for a
    process that ends with these few queries: they are encoded without torch where that can be done
    (`encoders.mapped`). `InputError` for a line that is wrong, or that does not fit the index, before any model is
    loaded as far as that can be known.
    """
    from ..indexes.registry import open_index

    system = System.parse(line, device=device, trust_remote_code=trust_remote_code)
    system.check_named()
    site = OpenSite(None, topics, where, exact, unseen, journal, exclude)
    site.opened = index = open_index(directory, device=device, trust_remote_code=trust_remote_code)
    asked = list(queries)
    copies = topics is None and exclude == "self"
    if lacking := [query.id for query in asked if copies and "text" not in query.modalities]:
        raise InputError(f"exclude=self finds the query among the documents by its text: {list_few(lacking)} has none")
    langs = [lang for part in system.parts for lang in part.langs]
    kept = [parse_language(each) for each in list_values(where, "lang") if isinstance(each, str)]
    _check_languages(index, asked, [*kept, *langs])
    if (first := system.parts[0]).mode is not None:  # the queries are searched for as they are
        index.check_search(Run.of(asked), first.mode, where)
    if brief:
        _give_mapped(index, device)
    with progress(*_foresee(system, len(asked))) as watcher, watch(watcher):
        stage = system.bind(site, system.depth(k), trace.wrap) if trace else system.bind(site, system.depth(k))
        run = stage(Run.of(asked)).cut(k)
        while copies and (others := _exclude_copies(asked, run)) != asked:
            asked = others
            if trace:
                trace.rankings.clear()
            run = stage(Run.of(asked)).cut(k)
    if topics is None:  # no run is written, which would need a manifest
        return run
    settings = {"k": k, "where": where, "exact": exact, "exclude": exclude, "unseen": unseen}
    about = {"system": line, **settings, "queries": describe_items(asked), "index": describe_index(index)}
    return run.note(**hide_secrets(about), provenance=provenance(device))


def _give_mapped(index: Index, device: str) -> None:
    """Have an index encode queries without torch, if that can be done in all of its spaces."""
    from ..encoders.mapped import open_mapped

    found = [open_mapped(spec, device) for spec in index.specs]
    for encoder in found if None not in found else ():
        assert encoder is not None
        index.encoders.give(encoder)


def _exclude_copies(queries: Sequence[Item], run: Run) -> list[Item]:
    """The queries, their hits that have the same text now among those that are excluded."""
    others = []
    for query in queries:
        copies = {item.id for item in run.items(query.id) if (item.text or "").strip() == (query.text or "").strip()}
        if new := copies - list_excluded(query, "listed"):
            listed = sorted(new | list_excluded(query, "listed"))
            query = replace(query, meta={**query.meta, EXCLUDED: listed})
        others.append(query)
    return others


def rerank_run(
    run: Run,
    collection: Collection,
    specs: Sequence[str],
    *,
    exclude: Exclude = "listed",
    unseen: str = "refuse",
    device: str = "auto",
    trust_remote_code: bool = False,
    journal: Path | None = None,
    progress: Progress = show_nothing,
) -> Run:
    """A run made elsewhere, reranked by one system after the other; its documents are those of the collection.

    What `exclude` says (`runs.list_excluded`) is taken out of it before.
    """
    from ..multilingual.collections.base import fetch_documents

    line = " >> ".join(map(_quote, specs))
    system = System.parse(line, device=device, trust_remote_code=trust_remote_code)
    system.check_named()
    site = OpenSite(topics=collection, unseen=unseen, journal=journal)
    run = run.drop_excluded(exclude)
    held = fetch_documents(collection, {hit.id for hits in run.hits.values() for hit in hits})
    with progress(*_foresee(system, len(run))) as watcher, watch(watcher):
        made = system.bind(site, 0)(replace(run, docs=held))
    about = {
        "system": line, "exclude": exclude, "unseen": unseen, "queries": describe_items(run.queries),
        "collection": {"name": collection.name, **describe_items(held.items.values())},
        "reranked": dict(run.manifest.about),
    }  # fmt: skip
    return made.note(**hide_secrets(about), provenance=provenance(device))


def choose_encoders(pictures: int) -> list[str]:
    """The default encoders: text alone needs one space; pictures need the shared one beside it."""
    return ["offline:e5-use", "offline:conse"] if pictures else ["offline:e5-use"]


def place_journal(output: Path) -> Path | None:
    """Where finished queries are kept until the run is written; `InputError` if it could not be written.

    Beside a stream nothing can be kept: None.
    """
    check_output(output)
    return None if is_stream(output) else output.with_name(output.name + ".journal")


def _foresee(system: System, queries: int) -> tuple[str, int | None]:
    """What is shown while a system works, and about how many questions its judges will answer; None is unknown."""
    methods = [part.method for part in system.parts if part.method is not None]
    if not methods:
        return "searching", None
    if any("@" in part.spec and part.method is None for part in system.parts):  # what rewrites asks, too
        return "judging", None
    return "judging", round(queries * sum(count_questions(each)[0] for each in methods))


def _check_languages(index: Index, queries: Sequence[Item], langs: Iterable[str]) -> None:
    """`InputError` for a language asked for, or meant by all topics, that no document of the index is in."""
    from ..multilingual.collections.topics import check_topic_languages

    held: Mapping[str, int] = index.langs
    if lacking := [lang for lang in dict.fromkeys(langs) if lang not in held]:
        rest = f"only in {list_few(held, 8)}" if held else "only documents without a language"
        raise InputError(f"{index.path} has no documents in {', '.join(lacking)}, {rest}")
    if sum(held.values()) == len(index):  # every document has one
        check_topic_languages(list(queries), held, index.path)


def _quote(spec: str) -> str:
    """A reranker's SPEC as it stands in a line: in quotes where it holds white space, parentheses or a comma."""
    if "@" not in spec and spec not in NAMED:
        parse_reranker(spec)  # says that it names no model
    if not any(character.isspace() or character in "()," for character in spec):
        return spec
    mark = "'" if '"' in spec else '"'
    if mark in spec:
        raise InputError(f"the SPEC {spec} holds both kinds of quotes, which a line cannot hold")
    return f"{mark}{spec}{mark}"
