"""Conducts an experiment: every system on every collection, runs and manifests on disk, one table each."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import lock_directory, make_directory, write_atomically, write_json
from ...pipeline import Progress, Stage, show_nothing, watch
from ...runs import Run, find_relevant
from ...systems.provenance import hide_secrets, provenance
from ...systems.rewriting import write_beside
from ...systems.stages import Vocabulary
from ...systems.system import System
from ..evaluate import evaluate
from ..measures import MEASURES, MLIR
from ..table import Table
from .examples import choose_examples
from .plan import Plan
from .rates import Rates, mean_tokens, note_indexes, note_system
from .results import Cost, Outcome, Part, Results
from .sites import ExperimentSite, make_slug
from .store import KeptStage, ResultStore

log = logging.getLogger("crosslens")


def parse_systems(plan: Plan, *, device: str = "auto", trust_remote_code: bool = False) -> dict[str, System]:
    """The plan's systems by name; `InputError` names the system whose line is wrong. Loads no model."""
    systems, names = {}, Vocabulary(plan.encoders, plan.documents, plan.fields)
    for name, line in plan.systems.items():
        try:
            systems[name] = System.parse(line, names, device=device, trust_remote_code=trust_remote_code)
        except InputError as error:
            raise InputError(f"the system {name!r}: {error}") from None
    return systems


def open_sites(plan: Plan, out: Path, *, progress: Progress = show_nothing, **options: Any) -> list[ExperimentSite]:
    """The plan's collections, opened, each with its systems; `options` are those of `parse_systems`, and so its errors.

    `InputError` also where a collection cannot be read.
    """
    systems = parse_systems(plan, **options)
    return [ExperimentSite(name, plan, systems, out, progress, options) for name in plan.collections]


def conduct(
    plan: Plan, out: Path, *, device: str = "auto", trust_remote_code: bool = False, progress: Progress = show_nothing
) -> Results:
    """Run the plan, its files below the directory `out`; what an earlier run has finished there is used again.

    Each system on each collection leaves `COLLECTION/SYSTEM/run.trec`, `manifest.json` and `measures.jsonl`.
    `InputError` on what the plan asks for and cannot be, as early as it can be known.
    """
    from ...checkpoints.devices import resolve_device

    make_directory(out)
    with lock_directory(out):
        about = provenance(str(resolve_device(device)))
        sites = open_sites(plan, out, progress=progress, device=device, trust_remote_code=trust_remote_code)
        for system in sites[0].systems.values():
            system.check_named()
        for site in sites:  # counts and judgements are read before any work
            _ = site.content, site.qrels
        for system in sites[0].systems.values():
            system.check_models(sites[0])
        return Results(plan.name, plan.to_json(), tuple(_run_systems(site, about) for site in sites), about)


def _run_systems(site: ExperimentSite, about: Mapping[str, Any]) -> Part:
    """One collection: the run of each system, the table over them, and the files of each."""
    k = site.plan.k
    store = ResultStore(site.out / "stages", site.content.content, about["versions"]["crosslens"])
    runs: dict[str, Run] = {}
    outcomes: dict[str, Outcome] = {}
    last: Stage | None = None  # kept until the next system is loaded, which then finds its models
    for name, system in site.systems.items():
        taken: list[str] = []
        with site.progress(f"{site.slug}: {name}", None) as watcher, watch(watcher):
            last = system.bind(site, system.depth(k), partial(KeptStage, store=store, taken=taken))
            run = runs[name] = last(Run.of(site.queries)).cut(k)
        folder = site.out / site.slug / make_slug(name)
        make_directory(folder)
        run.to_trec(folder / "run.trec", make_slug(name))
        write_beside(run, folder / "run.trec")
        where = str(folder.relative_to(site.out))
        outcomes[name] = Outcome(name, system.line, where, Cost.of_run(run), len(site.queries), tuple(taken))
        seconds, kept = outcomes[name].cost.seconds, f" ({len(taken)} stages kept)" * bool(taken)
        log.info("%s: %s: %.1f s%s", site.slug, name, seconds, kept)
    del last
    table = _evaluate_runs(site, runs)
    rates = Rates.of_machine(str(about["device"]))
    for name, system in site.systems.items():
        note_system(rates, system, runs[name], outcomes[name].reused)
    note_indexes(rates, site.made, mean_tokens(site.collection.docs()))
    rates.save()
    for name, run in runs.items():
        _write_provenance(site, outcomes[name], run, table, about)
    langs = Counter(query.lang or "" for query in site.queries)
    indexes = tuple(site.notes.values())
    examples = choose_examples(site.queries, runs, table, site.qrels, site.fetch)
    site.close()
    return Part(site.name, site.content.counts, dict(langs.most_common()), table, outcomes, indexes, examples)


def _evaluate_runs(site: ExperimentSite, runs: Mapping[str, Run]) -> Table:
    plan, qrels = site.plan, site.qrels
    relevant = find_relevant(qrels)
    hits = {hit.id for run in runs.values() for topic in qrels for hit in run[topic]}
    langs = site.languages(relevant | hits)
    several = len({langs.get(doc, "") for doc in relevant} - {""}) > 1
    per: str | None = plan.per
    if per == "auto":
        query_langs = {query.lang for query in site.queries if query.id in qrels}
        per = "doc_lang" if several else "lang" if len(query_langs) > 1 else None
    return evaluate(
        runs,
        qrels,
        plan.measures or (*MEASURES, *(MLIR if several and relevant <= langs.keys() else ())),
        per=per,
        baseline=plan.baseline,
        test=plan.test,
        correction=plan.correction,
        interval=plan.interval,
        queries=site.queries,
        doc_langs=langs,
        seed=plan.seed,
    )


def _write_provenance(site: ExperimentSite, outcome: Outcome, run: Run, table: Table, about: Mapping[str, Any]) -> None:
    """Beside the run: how it came to be, and every query's measures."""
    folder = site.out / outcome.folder
    manifest = {
        "system": outcome.system,
        "pipeline": outcome.pipeline,
        "collection": {"name": site.name, "content": site.content.content},
        "queries": outcome.queries,
        **asdict(outcome.cost),
        "stages": run.manifest.to_json(),
        "kept": list(outcome.reused),
        "indexes": list(site.notes.values()),
        "provenance": dict(about),
    }
    write_json(folder / "manifest.json", hide_secrets(manifest))
    values = table.values[outcome.system]
    with write_atomically(folder / "measures.jsonl") as file:
        for topic in next(iter(values.values())):
            row = {"topic": topic, "measures": {measure: of[topic] for measure, of in values.items()}}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
