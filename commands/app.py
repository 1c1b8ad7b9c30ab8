"""The command line. Thin: it parses, calls the library, and prints; see DESIGN section 5 for the contract."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ..systems.search import default_encoders, filters, journal, rerankers, searched
from .console import emit, guarded, progress, say, shown, summary
from .here import app as here
from .options import (
    Collection,
    Correct,
    Device,
    Exact,
    Fields,
    Json,
    Judged,
    Langs,
    Location,
    Mode,
    QueryLang,
    Ray,
    Rerank,
    Source,
    Tag,
    Trust,
    Unseen,
    Wheres,
    Written,
)  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("crosslens"))
        raise typer.Exit


app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)


@app.callback()
def crosslens(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Multilingual and multimodal retrieval: index, search, rerank, evaluate."""


@app.command()
def demo(
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Keep the index here (default: temporary).")
    ] = None,
    html: Annotated[Path, typer.Option(help="Where the contact sheet goes.")] = Path("demo.html"),
    device: Device = "auto",
    json: Json = False,
) -> None:
    """The main job end to end, offline: index texts and photos, search across languages, rerank, evaluate."""
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    from ..demo.tour import show, tour

    with (
        TemporaryDirectory(prefix="crosslens-demo-") if directory is None else nullcontext(directory) as where
    ):
        report = tour(Path(where), html, device=device)
        if directory is None:
            report = replace(report, index="temporary, removed; --dir DIR keeps it")
        if json:
            emit(report.to_json())
        else:
            show(report)


@app.command()
def index(
    collection: Collection,
    directory: Location,
    encoder: Annotated[list[str] | None, typer.Option(help="Encoder SPEC; repeatable.")] = None,
    lexical: Annotated[
        bool, typer.Option("--lexical/--no-lexical", help="Full text beside the vectors.")
    ] = True,
    kind: Annotated[str, typer.Option("--index", help="lance, flat or faiss:FACTORY.")] = "lance",
    ann: Annotated[str, typer.Option(help="auto, none, IVF_FLAT, IVF_RQ, IVF_PQ or IVF_HNSW_SQ.")] = "auto",
    passages: Annotated[
        bool, typer.Option("--passages", help="Split documents; the best passage counts (MaxP).")
    ] = False,
    window: Annotated[int | None, typer.Option(help="Tokens of a passage (default: 180).")] = None,
    stride: Annotated[
        int | None, typer.Option(help="Tokens from a passage to the next (default: half the window).")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Count malformed lines and go on.")] = False,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Take vectors from the cache, and keep new ones there.")
    ] = True,
    ray: Ray = None,
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Encode a collection into an index; interrupted, the same command goes on where it was."""
    from ..indexes.card import Windows
    from ..multilingual.collections.base import load
    from ..systems.indexing import indexed

    split = passages or window is not None or stride is not None
    windows = Windows.of(window, stride) if split else None
    source = load(collection, skip_bad=skip_bad)
    counts = source.check()
    made = indexed(
        source, directory, encoder or default_encoders(counts.images), documents=counts.documents, kind=kind,
        lexical=lexical, windows=windows, ann=ann, device=device, trust_remote_code=trust_remote_code, ray=ray,
        cache=cache,
    )  # fmt: skip
    if json:
        emit({**made.to_json(), "skipped": counts.skipped})
        return
    print(made)
    if counts.skipped:
        say(f"{counts.skipped} bad lines skipped")


@app.command()
def search(
    directory: Location,
    text: Annotated[str | None, typer.Argument(metavar="TEXT")] = None,
    image: Annotated[
        Path | None, typer.Option(help="A picture to search with, alone or beside TEXT.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many results.")] = 10,
    mode: Mode = "hybrid",
    lang: Langs = None,
    where: Wheres = None,
    query_lang: QueryLang = None,
    rerank: Rerank = None,
    unseen: Unseen = "keep",
    correction: Correct = True,
    exact: Exact = False,
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Search an index with text, a picture, or both."""
    from ..items import Item
    from ..multilingual.languages import iso, with_languages

    if not (text and text.strip()) and image is None:
        raise InputError("the query is empty: give TEXT, --image PATH, or both")
    if image is not None and not image.is_file():
        raise InputError(f"there is no picture {image}")
    query = Item("query", text=text, image=image, lang=iso(query_lang) if query_lang else None)
    run = searched(
        directory, with_languages([query]), k=k, mode=mode, where=filters(lang, where), correction=correction,
        exact=exact, rerank=rerank, unseen=unseen, device=device, trust_remote_code=trust_remote_code,
    )  # fmt: skip
    rows = [
        {"rank": rank, "id": hit.id, "score": round(hit.score, 6), "lang": item.lang, **shown(item)}
        for rank, (hit, item) in enumerate(zip(run["query"], run.items("query"), strict=True), 1)
    ]
    if json:
        emit({"query": text, "lang": run.queries[0].lang, "hits": rows, "stages": run.manifest.to_json()})
        return
    for row in rows:
        say_more = row["text"].replace("\n", " · ")
        print(f"{row['rank']:>3}  {row['score']:9.4f}  {row['lang'] or '   '}  {row['id']}  {say_more}")
    if not rows:
        say("no document matches")
    if rerank:
        from ..multilingual.reranking.rerank import remarks

        for line in remarks(run.manifest):
            say(line)


@app.command(name="run")
def run_(
    directory: Location,
    collection: Annotated[str, typer.Argument(help="Where the topics are.")],
    output: Written,
    k: Annotated[int, typer.Option("-k", help="Hits a topic.")] = 1000,
    mode: Mode = "hybrid",
    fields: Fields = None,
    query_lang: QueryLang = None,
    source: Source = None,
    lang: Langs = None,
    where: Wheres = None,
    rerank: Rerank = None,
    unseen: Unseen = "refuse",
    correction: Correct = True,
    exact: Exact = False,
    tag: Tag = "crosslens",
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Run all topics of a collection against an index and write a TREC run with its manifest."""
    from ..multilingual.collections.base import load
    from ..multilingual.languages import iso, with_languages

    topics = load(collection)
    code = iso(query_lang) if query_lang else None
    queries = list(with_languages(topics.queries(fields=fields, lang=code, source=source)))  # type: ignore[arg-type]
    if not queries:
        raise InputError(f"{collection} has no topics" + (f" in {code}" if code else ""))
    done = searched(
        directory, queries, k=k, mode=mode, where=filters(lang, where), correction=correction, exact=exact,
        rerank=rerank, unseen=unseen, device=device, trust_remote_code=trust_remote_code, journal=journal(output),
    )  # fmt: skip
    done.to_trec(output, tag)
    journal(output).unlink(missing_ok=True)
    summary(done, output, json)


@app.command()
def rerank(
    run: Annotated[Path, typer.Argument(metavar="RUN")],
    collection: Judged,
    specs: Annotated[
        list[str],
        typer.Option(
            "--rerank", help="Reranker SPEC, or `default`; repeatable: each reranks what the last one made."
        ),
    ],
    output: Written,
    fields: Fields = None,
    query_lang: QueryLang = None,
    unseen: Unseen = "refuse",
    tag: Tag = "crosslens",
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Rerank a TREC run with language models; killed, the same command goes on with the queries that are left."""
    from dataclasses import replace

    from ..multilingual.collections.base import documents, load
    from ..multilingual.languages import iso, with_languages
    from ..runs import Run

    source = load(collection)
    code = iso(query_lang) if query_lang else None
    first = Run.from_trec(run, list(with_languages(source.queries(fields=fields, lang=code))))
    held = documents(source, {hit.id for hits in first.hits.values() for hit in hits})
    with progress("judging") as bar:
        done = replace(first, docs=held)
        for stage in rerankers(specs, device, trust_remote_code, unseen, bar, journal(output)):
            done = stage(done)
    done.to_trec(output, tag)
    journal(output).unlink(missing_ok=True)
    summary(done, output, json)


@app.command()
def judge(
    collection: Judged,
    spec: Annotated[
        str, typer.Option("--judge", help="prompt@family:checkpoint, with a prompt that gives grades.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The TREC qrels to write.")],
    run: Annotated[
        list[Path] | None, typer.Option("--run", help="Judge the first documents of this run; repeatable.")
    ] = None,
    depth: Annotated[int, typer.Option(help="How many documents of each topic in each run.")] = 20,
    qrels: Annotated[
        str | None,
        typer.Option(
            help="Human judgements to agree with, and without --run to judge anew: a file, or `collection`."
        ),
    ] = None,
    measure: Annotated[str, typer.Option("-m", "--measure", help="What ranks the runs.")] = "nDCG@20",
    fields: Fields = None,
    query_lang: QueryLang = None,
    unseen: Annotated[
        str, typer.Option(help="Pairs that the judge cannot see, photos say: refuse, or skip.")
    ] = "refuse",
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Let a language model grade documents into TREC qrels, and hold its grades against human ones."""
    from ..evaluation import assess
    from ..multilingual.collections.base import load

    prompt, model = assess.method(spec, device=device, trust_remote_code=trust_remote_code)
    task = assess.task(
        load(collection), output, runs=run or (), depth=depth, qrels=qrels, fields=fields, lang=query_lang,
        measure=measure, unseen=unseen,
    )  # fmt: skip
    assessor = assess.Assessor(model(), prompt)
    with progress("judging", len(task.pairs)) as bar:
        report = task.judged_by(assessor, progress=bar)
    if json:
        emit(report.to_json())
        return
    print(report)
    for note in report.notes:
        say(note)


@app.command()
def evaluate(
    qrels: Annotated[Path, typer.Argument(metavar="QRELS")],
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...")],
    measure: Annotated[
        list[str] | None,
        typer.Option("-m", help="As ir_measures writes it: nDCG@20, alpha_nDCG@20, PEER@20; repeatable."),
    ] = None,
    per_language: Annotated[
        bool | None,
        typer.Option(
            "--per-language/--no-per-language",
            help="Also by the documents' language (default: where relevant documents have several).",
        ),
    ] = None,
    langs: Annotated[
        str | None,
        typer.Option(
            help="The documents' languages where column 2 of QRELS does not tell: a file of lines "
            "`document language`, or a collection."
        ),
    ] = None,
    per_topic: Annotated[bool, typer.Option("--per-topic", help="Also every topic's values.")] = False,
    baseline: Annotated[
        int | None, typer.Option(help="Test every run against this one (0: the first).")
    ] = None,
    test: Annotated[str, typer.Option(help="The paired test: t or randomisation.")] = "t",
    correction: Annotated[str, typer.Option(help="For many runs: holm or bonferroni.")] = "holm",
    interval: Annotated[
        float | None, typer.Option(help="Bootstrap intervals of the means at this confidence: 0.95.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the randomisation test and the bootstrap.")] = 0,
    json: Json = False,
) -> None:
    """Measures of runs, by language and topic, with paired tests against a baseline and intervals."""
    from ..evaluation.evaluate import evaluate_files

    table = evaluate_files(
        qrels, runs, measures=measure or None, per_language=per_language, langs=langs, baseline=baseline,
        test=test, correction=correction, interval=interval, seed=seed,  # type: ignore[arg-type]
    )  # fmt: skip
    if json:
        emit(table.to_json(per_query=per_topic))
    else:
        table.show(per_topic=per_topic)


@app.command()
def experiment(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="Collections, systems, measures.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where all of it goes (default: FILE.results).")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done: documents, tokens, judge calls.")
    ] = False,
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Many systems on some collections: runs, manifests, tables and a report; a rerun does only what is not done."""
    from ..evaluation.experiment.plan import Plan

    plan = Plan.read(file)
    out = output or file.with_suffix(".results")
    if dry_run:
        from ..evaluation.experiment.survey import survey

        found = survey(plan, out)
        if json:
            emit({"plan": plan.to_json(), "collections": [each.to_json() for each in found]})
        else:
            print(*found, sep="\n")
        return
    from ..evaluation.experiment.conduct import conduct
    from ..evaluation.report.files import leave

    results = conduct(plan, out, device=device, trust_remote_code=trust_remote_code)
    leave(results, out)
    if json:
        emit(results.to_json())
        return
    for part in results.parts:
        print(part.collection)
        part.table.show()
    print(f"{out}: report.html, results.json, tables.md, tables.tex, and a folder for every run")


@app.command()
def export(
    collection: Collection,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty directory.")],
    format: Annotated[str, typer.Option(help="directory or beir.")] = "directory",
    fields: Fields = None,
    query_lang: QueryLang = None,
    source: Source = None,
    json: Json = False,
) -> None:
    """Write a collection as files: documents, topics, judgements, and copies of its pictures."""
    from ..multilingual.collections.base import load
    from ..multilingual.collections.export import export

    with progress("exporting") as bar:
        done = export(
            load(collection), directory, format, fields=fields, lang=query_lang, source=source, progress=bar  # type: ignore[arg-type]
        )  # fmt: skip
    if json:
        emit({"directory": str(directory), "format": format, **vars(done)})
    else:
        print(
            f"{directory}: {done.documents} documents, {done.queries} topics, {done.judged} judgements, "
            f"{done.images} pictures"
        )


@app.command()
def translate(
    collection: Collection,
    output: Annotated[Path, typer.Option("--output", "-o", help="The JSON lines to write; a rerun resumes.")],
    to: Annotated[str, typer.Option(help="The language to translate into.")],
    spec: Annotated[
        str, typer.Option("--with", help="The model: hf:facebook/nllb-200-distilled-600M, openai:MODEL, ...")
    ],
    what: Annotated[str, typer.Option(help="documents or queries.")] = "documents",
    fields: Fields = None,
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Translate a collection's documents or topics into a file; killed, the same command goes on where it was."""
    from ..multilingual.collections import base as collections
    from ..multilingual.rewriting import translation
    from ..multilingual.rewriting.translation_files import translate_collection

    source = collections.load(collection)
    total = source.check().documents if what == "documents" else None
    stage = translation.load(spec, to=to, device=device, trust_remote_code=trust_remote_code)
    with progress("translating", total) as bar:
        report = translate_collection(source, output, stage, what=what, fields=fields, progress=bar)  # type: ignore[arg-type]
    if json:
        emit(report.to_json())
        return
    print(report)
    for note in report.notes:
        say(note)


app.add_typer(here)


def main() -> None:
    """Run the command line; exits with its status."""
    # Threads that wait by spinning make everything three times slower on a busy machine, and cost 2% less on an
    # idle one. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    def program() -> None:
        # Alone, typer would print errors in a box and exit with its own status; so it returns the status instead.
        status = app(standalone_mode=False)
        if status == 130:
            raise KeyboardInterrupt
        if status:
            sys.exit(status)

    sys.exit(guarded(program))


def script() -> None:
    """The console script: `main`, without the second that torch and lancedb take to be torn down."""
    try:
        main()
    except SystemExit as stop:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(stop.code if isinstance(stop.code, int) else 1)
