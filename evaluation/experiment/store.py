"""What stages made, kept on disk: the same stage on the same input is computed once, now and at every rerun.

One Parquet file a result, with the hits as columns and queries and records in its metadata. It gets its name when it
is complete, so nothing unfinished is ever read; beside it stands its sha256, so nothing damaged is.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import first_line
from ...files import check_file, hash_file, make_directory, parse_json, place_atomically, read_text, write_atomically
from ...items import Item, Queries
from ...pipeline import Stage
from ...runs import EXCLUDED, Documents, Hit, Manifest, Probe, Record, Run
from .results import watch_memory

log = logging.getLogger("crosslens")

FORMAT = "1"


@dataclass(frozen=True)
class ResultStore:
    """Results of stages below one directory; `content` is a digest of the documents, `version` the program's."""

    folder: Path
    content: str
    version: str

    def key(self, stage: Stage, run: Run) -> str:
        """32 hex digits over all that a stage's result depends on."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (FORMAT, self.version, self.content, stage.fingerprint):
            digest.update(part.encode() + b"\0")
        for query, hits in run:
            parts = [query.id, query.content_hash(), json.dumps(dict(query.meta), sort_keys=True, default=str)]
            parts += ["excluded"] * (EXCLUDED in query.meta)  # which was once read and not heeded
            parts += [f"{hit.id} {hit.score!r}" for hit in hits]
            parts += [f"{item.content_hash()} {rest!r}" for item, *rest in run.probes.get(query.id, ())]
            digest.update("\n".join(parts).encode("utf-8", "surrogatepass") + b"\0")
        return digest.hexdigest()

    def get(self, key: str, run: Run, docs: Documents | None) -> Run | None:
        """The result under a key, given the input that it was made of; None if there is none, or a damaged one."""
        path = self.folder / f"{key}.parquet"
        if not os.path.lexists(path):
            return None
        check_file(path)
        import pyarrow as pa

        try:
            if what := check_result(path):
                raise ValueError(what)
            return _read_run(path, run, docs)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            log.warning("%s is damaged (%s): it is computed again", path, first_line(error))
            return None

    def put(self, key: str, run: Run, records: Iterable[Record]) -> None:
        """Keep a result; `records` are those of the stage itself."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        about = {
            "queries": [_to_record(query) for query in run.queries],
            "probes": {id: [(_to_record(item), *rest) for item, *rest in some] for id, some in run.probes.items()},
            "seen": sorted(
                {item.id for some in run.probes.values() for item, *_ in some if item.modalities - {"text"}}
            ),
            "ranked": list(run.hits),
            "records": Manifest(tuple(records)).to_json(),
        }
        rows = [(query, *hit) for query, hits in run.hits.items() for hit in hits]
        columns = zip(*rows, strict=True) if rows else ((), (), ())
        names, docs, scores = map(pa.array, columns, (pa.string(), pa.string(), pa.float64()))
        table = pa.table({"query": names.dictionary_encode(), "doc": docs, "score": scores})
        table = table.replace_schema_metadata({"crosslens": json.dumps(about, ensure_ascii=False, default=str)})
        make_directory(self.folder)
        with place_atomically(self.folder / f"{key}.parquet") as partial:
            pq.write_table(table, partial, compression="zstd")
            sum = hash_file(partial)
            sum_file(self.folder / f"{key}.parquet").unlink(missing_ok=True)  # of a damaged result
        write_sum(self.folder / f"{key}.parquet", sum)


def sum_file(result: Path) -> Path:
    """Where the checksum of a result stands."""
    return result.with_suffix(".sha256")


def write_sum(result: Path, sum: str) -> None:
    """Keep the sha256 of a result, in hex, as `sha256sum --check` reads it."""
    with write_atomically(sum_file(result)) as out:
        out.write(f"{sum}  {result.name}\n")


def check_result(path: Path) -> str:
    """What is wrong with a kept result, "" if nothing is, or if it has no checksum, as earlier versions left it."""
    if not sum_file(path).exists():
        return ""
    expected = read_text(sum_file(path)).split()[:1]
    return "" if [hash_file(path)] == expected else "its sha256 differs"


def read_result(path: Path) -> tuple[dict[str, Any], list[tuple[str, str, float]]]:
    """What stands in a kept result: what is said of it, and query, document and score of each hit.

    One that is damaged raises `OSError`, `ValueError`, `KeyError`, `TypeError` or an error of Arrow's.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    table.validate(full=True)
    stored: dict[str, Any] = parse_json(table.schema.metadata[b"crosslens"])
    return stored, list(zip(*(table.column(name).to_pylist() for name in ("query", "doc", "score")), strict=True))


def _read_run(path: Path, run: Run, docs: Documents | None) -> Run:
    """The run in a kept result, given that which it was made of."""
    stored, rows = read_result(path)
    given = {query.id: query for query in run.queries}
    queries = tuple(_to_item(each, given) for each in stored["queries"])
    # The media of probes are those of queries, or of documents that were found.
    if (seen := [id for id in stored.get("seen", ()) if id not in given]) and docs is not None:
        given |= zip(seen, docs.get(seen), strict=True)
    kept = stored.get("probes", {}).items()  # which earlier versions wrote without weights and groups
    probes = {id: tuple(Probe(_to_item(item, given), *rest) for item, *rest in some) for id, some in kept}
    ranked: dict[str, list[Hit]] = {id: [] for id in stored["ranked"]}
    for query, doc, score in rows:
        ranked[query].append(Hit(doc, score))
    hits = {id: tuple(found) for id, found in ranked.items()}
    manifest = Manifest((*run.manifest.records, *(Record(**each) for each in stored["records"])))
    return Run(queries, hits, manifest, docs, probes)


@dataclass(frozen=True)
class KeptStage(Stage):
    """A stage whose results are kept in a store, and taken from there where they are.

    `taken` gets the name of every stage whose result was.
    """

    stands_for: Stage
    store: ResultStore = field(compare=False, repr=False)
    taken: list[str] = field(compare=False, repr=False)

    def __call__(self, run: Run | Queries) -> Run:
        run = run if isinstance(run, Run) else Run.of(run)
        stage = self.stands_for
        docs = stage.docs or run.docs
        key = self.store.key(stage, run)
        if (found := self.store.get(key, run, docs)) is not None:
            self.taken.append(str(stage))
            return found
        journal = self.store.folder / f"{key}.journal"
        if hasattr(stage, "journal"):  # what takes long keeps each query that is done
            self.store.folder.mkdir(parents=True, exist_ok=True)
            stage = replace(stage, journal=journal)  # type: ignore[type-var]
        with watch_memory() as highest:
            made = stage(run)
        (*earlier, own) = made.manifest.records
        if (most := highest()) is not None:
            own = replace(own, counts={**own.counts, "peak_bytes": most})
        made = replace(made, manifest=Manifest((*earlier, own)))
        self.store.put(key, made, made.manifest.records[len(run.manifest.records) :])
        journal.unlink(missing_ok=True)
        return made

    def describe(self) -> object:
        return self.stands_for.describe()  # a stage that keeps what another makes computes the same

    def __str__(self) -> str:
        return str(self.stands_for)


def _to_record(item: Item) -> dict[str, object]:
    return {"id": item.id, "text": item.text, "lang": item.lang, "meta": dict(item.meta)}


def _to_item(record: Mapping[str, Any], given: Mapping[str, Item]) -> Item:
    """A query as it was kept; its media come from the query of that id that was given."""
    before = given.get(record["id"], Item(record["id"]))
    return replace(before, text=record["text"], lang=record["lang"], meta=record["meta"])
