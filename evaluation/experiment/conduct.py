"""Conducts an experiment: every system on every collection, runs and manifests on disk, one table each."""

from __future__ import annotations

import json
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ...commands.console import progress, say
from ...errors import InputError
from ...files import write_atomically
from ...multilingual.collections.base import Lacking
from ...pipeline import Stage
from ...runs import Qrels, Run
from ...systems import stages as leaves
from ...systems.grammar import parse
from ...systems.stages import Leaf, Wanted
from ..evaluate import evaluate
from ..measures import MEASURES, MLIR
from ..table import Table
from .plan import Plan
from .results import Cost, Outcome, Part, Results
from .sites import Place, slug
from .store import Kept, Store

PACKAGES = (
    "crosslens",
    "torch",
    "transformers",
    "lancedb",
    "open_clip_torch",
    "ir_measures",
    "numpy",
    "scipy",
)


@dataclass(frozen=True)
class System:
    """A pipeline of the plan: its SPECs in the order in which they stand, and the leaf that each of them means."""

    name: str
    pipeline: str
    specs: tuple[str, ...]
    leaves: Mapping[str, Leaf]

    @property
    def wanted(self) -> list[Wanted]:
        """The indexes that it searches."""
        return [leaf.wanted for leaf in self.leaves.values() if leaf.wanted is not None]


def systems(plan: Plan, *, device: str = "auto", trust_remote_code: bool = False) -> list[System]:
    """The plan's pipelines, read; `InputError` names the system whose line is wrong. Loads no model."""
    found = []
    for name, text in plan.systems.items():
        seen: dict[str, Leaf] = {}
        specs: list[str] = []

        def leaf(spec: str, seen: dict[str, Leaf] = seen, specs: list[str] = specs) -> Stage:
            specs.append(spec)
            if spec not in seen:
                seen[spec] = leaves.read(spec, plan, device=device, trust_remote_code=trust_remote_code)
            return seen[spec]

        try:
            parse(text, leaf)
        except InputError as error:
            raise InputError(f"the system {name!r}: {error}") from None
        found.append(System(name, text, tuple(specs), seen))
    return found


def places(
    plan: Plan,
    compared: Sequence[System],
    out: Path,
    *,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> list[Place]:
    """The plan's collections, opened; `InputError` where one cannot be read."""
    wanted = [each for system in compared for each in system.wanted]
    return [
        Place(name, plan, out, wanted, device=device, trust_remote_code=trust_remote_code)
        for name in plan.collections
    ]


def conduct(plan: Plan, out: Path, *, device: str = "auto", trust_remote_code: bool = False) -> Results:
    """Run the plan, its files below the directory `out`; what an earlier run has finished there is used again.

    Each system on each collection leaves `COLLECTION/SYSTEM/run.trec`, `manifest.json` and `measures.jsonl`.
    `InputError` on what the plan asks for and cannot be, as early as it can be known.
    """
    from ...indexes.places import locked

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the directory {out}: {error.strerror}") from None
    with locked(out):
        about = provenance(device)
        compared = systems(plan, device=device, trust_remote_code=trust_remote_code)
        opened = places(plan, compared, out, device=device, trust_remote_code=trust_remote_code)
        judged = [_judgements(place) for place in opened]
        return Results(
            plan.name,
            plan.to_json(),
            tuple(_part(place, compared, qrels, about) for place, qrels in zip(opened, judged, strict=True)),
            about,
        )


def provenance(device: str = "auto") -> dict[str, object]:
    """Where and with what: versions, the commit that crosslens runs from (None: installed), the machine, the date."""
    from ...checkpoints.devices import resolve_device

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "?"
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **versions},
        "device": str(resolve_device(device)),
        "machine": {"system": platform.platform(), "processor": _processor()},
    }


def _judgements(place: Place) -> Qrels:
    """Counts and judgements of a collection, and that each system can be asked there: before any work."""
    _ = place.known
    try:
        qrels = place.collection.qrels()
    except Lacking as error:
        raise InputError(f"an experiment needs judgements: {error}") from None
    if not qrels.keys() & {query.id for query in place.queries}:
        raise InputError(f"no topic of {place.name} in this wording is judged")
    return qrels


def _part(place: Place, compared: Sequence[System], qrels: Qrels, about: Mapping[str, Any]) -> Part:
    plan = place.plan
    store = Store(place.out / "stages", place.content, about["versions"]["crosslens"])
    runs: dict[str, Run] = {}
    outcomes: dict[str, Outcome] = {}
    last: Stage | None = None  # kept until the next system is loaded, which then finds its models
    for system in compared:
        name, text = system.name, system.pipeline
        taken: list[str] = []

        def leaf(spec: str, system: System = system, taken: list[str] = taken) -> Stage:
            return Kept(system.leaves[spec].at(place), store, taken)

        with progress(f"{place.slug}: {name}") as place.bar:
            last = parse(text, leaf)
            run = runs[name] = last(Run.of(place.queries)).cut(plan.k)
        folder = place.out / place.slug / slug(name)
        folder.mkdir(parents=True, exist_ok=True)
        run.to_trec(folder / "run.trec", slug(name))
        cost = _cost(run)
        where = str(folder.relative_to(place.out))
        outcomes[name] = Outcome(name, text, where, cost, len(place.queries), tuple(taken))
        say(f"{place.slug}: {name}: {cost.seconds:.1f} s" + f" ({len(taken)} stages kept)" * bool(taken))
    del last
    table = _table(place, qrels, runs)
    for name, run in runs.items():
        _leave(place, outcomes[name], run, table, about)
    spoken = Counter(query.lang or "" for query in place.queries)
    indexes = tuple(place.notes.values())
    place.close()
    return Part(place.name, place.known.counts, dict(spoken.most_common()), table, outcomes, indexes)


def _table(place: Place, qrels: Qrels, runs: Mapping[str, Run]) -> Table:
    plan = place.plan
    relevant = {doc for grades in qrels.values() for doc, grade in grades.items() if grade > 0}
    hits = {hit.id for run in runs.values() for topic in qrels for hit in run[topic]}
    spoken = place.languages(relevant | hits)
    several = len({spoken.get(doc, "") for doc in relevant} - {""}) > 1
    per: str | None = plan.per
    if per == "auto":
        asked = {query.lang for query in place.queries if query.id in qrels}
        per = "doc_lang" if several else "lang" if len(asked) > 1 else None
    return evaluate(
        runs,
        qrels,
        plan.measures or (*MEASURES, *(MLIR if several else ())),
        per=per,
        baseline=plan.baseline,
        test=plan.test,
        correction=plan.correction,
        interval=plan.interval,
        queries=place.queries,
        doc_langs=spoken,
        seed=plan.seed,
    )


def _cost(run: Run) -> Cost:
    records = run.manifest.records
    peaks = [int(record.counts["peak_bytes"]) for record in records if record.counts.get("peak_bytes")]
    return Cost(
        seconds=round(sum(record.seconds for record in records), 3),
        tokens=int(run.manifest.total("prompt_tokens") + run.manifest.total("generated_tokens")),
        calls=int(run.manifest.total("calls")),
        peak_bytes=max(peaks, default=None),
    )


def _leave(place: Place, outcome: Outcome, run: Run, table: Table, about: Mapping[str, Any]) -> None:
    """Beside the run: how it came to be, and every query's measures."""
    folder = place.out / outcome.folder
    manifest = {
        "system": outcome.system,
        "pipeline": outcome.pipeline,
        "collection": {"name": place.name, "content": place.content},
        **asdict(outcome.cost),
        "stages": run.manifest.to_json(),
        "kept": list(outcome.reused),
        "indexes": list(place.notes.values()),
        "provenance": dict(about),
    }
    with write_atomically(folder / "manifest.json") as file:
        json.dump(manifest, file, indent=2, ensure_ascii=False)
    values = table.values[outcome.system]
    with write_atomically(folder / "measures.jsonl") as file:
        for topic in next(iter(values.values())):
            told = {"topic": topic, "measures": {measure: of[topic] for measure, of in values.items()}}
            file.write(json.dumps(told, ensure_ascii=False) + "\n")


def _commit() -> str | None:
    """The commit of the checkout that crosslens runs from, `+` where files differ from it."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        told = [
            subprocess.run(
                ["git", "-C", str(here), *asked], capture_output=True, text=True, timeout=10, check=True
            )
            for asked in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return told[0].stdout.strip() + "+" * bool(told[1].stdout.strip())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()
