"""What the command line searches with: from an index directory and SPECs to a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..commands.console import progress
from ..errors import InputError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..indexes.lance import LanceIndex
    from ..indexes.passages import PassageIndex
    from ..items import Item
    from ..multilingual.reranking.rerank import Rerank
    from ..runs import Run


def default_encoders(images: int) -> list[str]:
    """Text alone needs one space; pictures need the shared one beside it."""
    return ["offline:e5-small", "offline:conse"] if images else ["offline:e5-small"]


def searched(
    directory: str | Path, queries: Iterable[Item], *, k: int, mode: str, where: dict[str, Any] | None,
    correction: bool, exact: bool, rerank: list[str] | None, unseen: str, device: str, trust_remote_code: bool,
    journal: Path | None = None,
) -> Run:  # fmt: skip
    """The k best documents of each query, reranked if rerankers are named."""
    from ..indexes.registry import open_index

    if mode not in ("dense", "lexical", "hybrid"):
        raise unknown_name(mode, ("dense", "lexical", "hybrid"), "mode")
    index = open_index(directory, device=device, trust_remote_code=trust_remote_code)
    queries = list(queries)
    _check_languages(index, queries, where, str(directory))
    options: dict[str, Any] = {"where": where, "correct": correction, "exact": exact}
    if not rerank:
        return index.retriever(mode, k, **options)(queries)  # type: ignore[arg-type]
    with progress("judging") as bar:
        stages = rerankers(rerank, device, trust_remote_code, unseen, bar, journal)
        done = index.retriever(mode, max(k, *(each.depth for each in stages)), **options)(queries)  # type: ignore[arg-type]
        for stage in stages:
            done = stage(done)
        return done.cut(k)


def _check_languages(
    index: LanceIndex | PassageIndex, queries: list[Item], where: dict[str, Any] | None, name: str
) -> None:
    """`InputError` for a language asked for, or meant by all topics, that no document of the index is in."""
    from ..errors import list_few
    from ..multilingual.collections.base import check_meant

    langs = index.langs
    if lacking := [lang for lang in (where or {}).get("lang", ()) if lang not in langs]:
        raise InputError(f"{name} has no documents in {', '.join(lacking)}, only in {list_few(langs, 8)}")
    if sum(langs.values()) == len(index):  # every document has one
        check_meant(queries, langs, name)


def rerankers(
    specs: list[str], device: str, trust_remote_code: bool, unseen: str,
    bar: Callable[[int], None], journal: Path | None,
) -> list[Rerank]:  # fmt: skip
    """The stages that SPECs name; all are loaded before the first one works."""
    from ..multilingual.reranking.rerank import load

    return [
        load(
            spec,
            device=device,
            trust_remote_code=trust_remote_code,
            unseen=unseen,
            progress=bar,
            journal=journal,
        )
        for spec in specs
    ]


def journal(output: Path) -> Path:
    """Where finished queries are kept until the run is written."""
    if not output.parent.is_dir():
        raise InputError(f"there is no directory {output.parent} to write {output.name} into")
    return output.with_name(output.name + ".journal")


def filters(langs: list[str] | None, wheres: list[str] | None) -> dict[str, Any] | None:
    """`--lang` and `--where` as one filter; values of one key are alternatives."""
    from ..multilingual.languages import iso

    found: dict[str, Any] = {"lang": [iso(lang) for lang in langs]} if langs else {}
    for pair in wheres or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"--where {pair!r} is not KEY=VALUE")
        found.setdefault(key, []).append(value)
    return found or None
