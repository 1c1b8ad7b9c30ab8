"""Options and arguments that several commands share, each declared once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ..files import read_lines


def _parse_code(lang: str | None) -> str | None:
    from ..media.language_codes import parse_language

    return parse_language(lang) if lang else None


def list_ids(ids: list[str] | None, file: Path | None) -> list[str]:
    """The ids of documents that were given and stand in a file; `InputError` if there is none."""
    listed = (line.rstrip("\r\n") for line in read_lines(file)) if file else ()
    if not (wanted := [*(ids or ()), *(id for id in listed if id)]):
        raise InputError("no documents are named: give their ids, or a file of them with --ids")
    return wanted


def _check_device(device: str) -> str:
    from ..checkpoints.device_names import parse_device

    if device != "auto":
        parse_device(device)
    return device


def parse_filters(pairs: Iterable[str]) -> dict[str, list[str]] | None:
    """`KEY=VALUE` pairs as a filter; values of one key are alternatives."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"--where {pair!r} is not KEY=VALUE")
        found.setdefault(key, []).append(value)
    return found or None


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Device = Annotated[
    str,
    typer.Option(
        callback=_check_device,
        help="auto, cpu, cpu:N (N processes), cuda, cuda:N, cuda:N,M or mps. Several encode an index together, and "
        "auto is all CUDA devices then; searches, rerankers and judges take the first.",
    ),
]
Location = Annotated[str, typer.Argument(metavar="DIR", help="A directory, s3://, gs://, az:// or db://.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Ids of documents.")]
IdsFile = Annotated[Path | None, typer.Option("--ids", help="A file of ids, one a line; - is standard input.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Let checkpoints run code from their repository.")]
Line = Annotated[
    str | None,
    typer.Option(
        "--system",
        metavar="LINE",
        help="The whole system in one line, as in experiments: 'dense % 100 >> setwise@hf:...'. "
        "--mode, --lang, --no-correction and --rerank are shorthand for such a line.",
    ),
]
Mode = Annotated[str, typer.Option(help="dense, lexical or hybrid.")]
Correct = Annotated[bool, typer.Option("--correction/--no-correction", help="Language correction of dense scores.")]
Rerank = Annotated[
    list[str] | None,
    typer.Option("--rerank", help="Reranker SPEC, `default` or `best`; repeatable, each reranks the last one's."),
]
Langs = Annotated[list[str] | None, typer.Option("--lang", help="Only documents in this language; repeatable.")]
Wheres = Annotated[list[str] | None, typer.Option("--where", help="KEY=VALUE on meta, lang or modality; repeatable.")]
QueryLang = Annotated[
    str | None, typer.Option(callback=_parse_code, help="Language of the queries; identified if not given.")
]
Unseen = Annotated[
    str, typer.Option(help="Candidates that the reranker cannot see, as photos: keep their ranks, or refuse.")
]
Collection = Annotated[str, typer.Argument(metavar="COLLECTION", help="A directory, `demo`, irds:ID, or family:WHERE.")]
Indexed = Annotated[
    str,
    typer.Argument(
        metavar="COLLECTION",
        help="A folder of pictures, text, Markdown, HTML or PDF files, or one such file; a .tar of pictures and "
        "captions (WebDataset), or a folder of them; a directory with docs.jsonl, BEIR's or MTEB's; a file of rows "
        "(.jsonl, .csv, .tsv, .parquet, .arrow); a data set that `datasets` saved, or hfd:NAME?split=train; `demo`, "
        "irds:ID, or family:WHERE[?key=value].",
    ),
]
Judged = Annotated[str, typer.Argument(metavar="COLLECTION", help="Where the documents and topics are.")]
Fields = Annotated[str | None, typer.Option(help="title, description, narrative, or a + of them.")]
Source = Annotated[str | None, typer.Option(help="original, human or machine (translation of the topics).")]
Exact = Annotated[bool, typer.Option("--exact", help="No approximate search.")]
Exclude = Annotated[
    str,
    typer.Option(
        help="Documents that a topic may not find: those it `listed` (excluded_ids), `self` (also the one with its own "
        "id), or `none`."
    ),
]
Tag = Annotated[str, typer.Option(help="The run's tag.")]
Written = Annotated[Path, typer.Option("--output", "-o", help="The TREC run to write.")]
