"""A collection's topics rewritten into a file, as `crosslens rewrite` makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import check_output, is_stream, write_atomically
from ..multilingual.collections.base import Collection
from ..multilingual.collections.records import to_json_line
from ..multilingual.collections.topics import Source
from ..multilingual.languages import fill_languages
from ..multilingual.rewriting.base import Rewriter, describe_rewriting
from ..multilingual.rewriting.methods import Feedback
from ..multilingual.rewriting.plan import describe_languages, parse_rewriter
from ..multilingual.rewriting.rewrites import to_rewrite
from ..pipeline import Progress, show_nothing, watch
from ..runs import Manifest, Run
from .system import OpenSite


@dataclass(frozen=True)
class RewritingReport:
    """What was written: queries, those of them that were rewritten, and what it took."""

    output: Path
    stage: Rewriter
    manifest: Manifest
    queries: int

    @property
    def counts(self) -> Mapping[str, float]:
        return self.manifest.records[-1].counts

    @property
    def seconds(self) -> float:
        return round(self.manifest.records[-1].seconds, 1)

    def to_json(self) -> dict[str, Any]:
        return {
            "output": str(self.output), "queries": self.queries, "languages": list(self.stage.languages),
            "seconds": self.seconds, "counts": dict(self.counts), "stages": self.manifest.to_json(),
        }  # fmt: skip

    def __str__(self) -> str:
        made, kept = int(self.counts["rewritten"]), int(self.counts.get("kept", 0))
        were = f", of which {kept} were kept from before" if kept else ""
        return (
            f"{self.output}: {made} of {self.queries} queries rewritten in {self.seconds} s "
            f"(languages: {describe_languages(self.stage.languages)}; answers of the model: "
            f"{int(self.counts.get('calls', 0))}{were})"
        )

    @property
    def notes(self) -> list[str]:
        return describe_rewriting(self.manifest)


def rewrite_topics(
    collection: Collection,
    spec: str,
    output: str | Path,
    *,
    index: str | Path | None = None,
    fields: str | None = None,
    lang: str | None = None,
    source: Source | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    progress: Progress = show_nothing,
) -> RewritingReport:
    """Write the topics of a collection as the rewriter `spec` makes them, as JSON lines for the stage `rewrites`.

    The languages of the documents are those of an `index`, by default the collection's. What is written is kept as it
    comes (`rewriting.kept_texts`), so that the same call goes on after a kill; the file appears when it is complete.
    `InputError` for what is wrong with the SPEC, before its model is loaded.
    """
    output = Path(output)
    plan = parse_rewriter(spec, device=device, trust_remote_code=trust_remote_code)
    if issubclass(plan.method, Feedback):
        raise InputError(
            f"{spec} reads first results, and there is no search here: take it in a line of `crosslens run`, as in "
            f"`dense % 10 >> {spec} >> hybrid`"
        )
    check_output(output)
    queries = list(fill_languages(collection.queries(fields=fields, lang=lang, source=source)))
    if not queries:
        raise InputError(f"{collection.name} has no topics" + (f" in {lang}" if lang else ""))
    site = OpenSite(topics=collection)
    if index is not None:
        from ..indexes.registry import open_index

        site.opened = open_index(index, device=device, trust_remote_code=trust_remote_code)
    stage = plan.load(site.count_languages)
    with progress("writing", None) as watcher, watch(watcher):
        run = stage(Run.of(queries))
    write_rewrites(run, output)
    return RewritingReport(output, stage, run.manifest, len(run))


def write_beside(run: Run, output: Path) -> None:
    """Write `OUTPUT.rewrites.jsonl` beside a run whose queries were rewritten, or remove that of another run there.

    Nothing stands beside a stream.
    """
    beside = output.with_name(f"{output.name}.rewrites.jsonl")
    if is_stream(output):
        return
    if run.probes:
        write_rewrites(run, beside)
    else:
        beside.unlink(missing_ok=True)


def write_rewrites(run: Run, output: Path) -> None:
    """Write the queries of a run as they were rewritten."""
    with write_atomically(output) as out:
        for query in run.queries:
            out.write(to_json_line(query.id, to_rewrite(query, run.probes.get(query.id, ()))))
