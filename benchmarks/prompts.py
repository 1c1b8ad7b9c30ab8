"""Does a model answer each prompt of the library, and does it prefer a place? Forty questions in four languages.

    python benchmarks/collections/help_questions.py questions.jsonl
    python benchmarks/prompts.py questions.jsonl --judge hf:DIR --out answers.jsonl --save docs/measured/prompts.json

A question has five passages: the answer and its four hardest rivals, the answer at each place equally often. Each method,
`prompt[:sorter][?options]`, reranks the five and is right where the answer comes first; chance is one in five. The prompt is
in the query's language where it has that. Reported are right answers by language, the probability that as many come by
chance (binomial), the label mass (probability on all labels before it is normalised; the least of the languages), how often
the passage at each place came first (8 of 40 each without a preference; a table of its own has it by language), questions
and seconds. A last table has what `calibrate=true` takes away: the probabilities of the labels on neutral passages.

Finished methods are kept in `--out`, by language, and skipped by the next run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from crosslens.commands.console import run_guarded
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.collections.base import InMemoryDocuments
from crosslens.multilingual.judges.journal import Journal
from crosslens.multilingual.judges.mass import read_mass
from crosslens.multilingual.prompts.calibration import find_prior
from crosslens.multilingual.reranking.plan import load_reranker
from crosslens.multilingual.reranking.rerank import Rerank
from crosslens.runs import Run
from measurements import Table, add_save, save, show_p
from scipy.stats import binomtest

METHODS = (
    "likelihood",
    "yesno",
    "graded",
    "instruct",
    "umbrela",
    "pairwise",
    "pairwise?orders=given",
    "pairwise?orders=given&calibrate=true",
    "setwise:full",
    "setwise:full?orders=both",
    "setwise:full?orders=rotations",
    "setwise:full?calibrate=true",
    "setwise-instruct:full",
    "first:full",
    "first:full?orders=rotations",
    "first:full?calibrate=true",
    "listwise:full",
    "listwise:full?orders=both",
    "listwise-think?thinking=192",
    "rank-r1:full?thinking=192",
)
PASSAGE_TOKENS = 128


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", type=Path, metavar="FILE", help="of benchmarks/collections/help_questions.py")
    parser.add_argument("--judge", default="offline:qwen-1.5b", metavar="SPEC", help="(%(default)s)")
    names = lambda text: tuple(filter(None, text.split(",")))  # noqa: E731
    parser.add_argument("--methods", type=names, default=METHODS, metavar="A,B", help="prompt[:sorter][?options]")
    parser.add_argument("--langs", type=names, metavar="A,B", help="of the questions (all)")
    parser.add_argument("--each", type=int, default=0, metavar="N", help="questions a language at most (all)")
    parser.add_argument("--priors", action="store_true", help="also the labels' probabilities on neutral passages")
    parser.add_argument("--out", type=Path, metavar="FILE", help="journal of what is finished; the next run goes on")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, the tables on stderr")
    add_save(parser)
    return parser.parse_args()


def read_questions(path: Path, langs: Sequence[str] | None, each: int) -> dict[str, list[dict[str, Any]]]:
    """The questions by language; `InputError` where there are none."""
    try:
        questions = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; benchmarks/collections/help_questions.py makes it") from None
    found = {lang: list(some) for lang, some in groupby(questions, key=lambda each: each["lang"])}
    found = {lang: some[: each or None] for lang, some in found.items() if not langs or lang in langs}
    if not found:
        raise InputError(f"{path} has no questions in {', '.join(langs or ()) or 'any language'}")
    return found


def write_spec(method: str, judge: str, places: int) -> str:
    name, _, options = method.partition("?")
    checkpoint, _, own = judge.partition("?")
    settings = [f"depth={places}", "k=1", f"passage_tokens={PASSAGE_TOKENS}", own, options]
    multilingual = "" if name.partition(":")[0] in ("cross", "rankllama") else "language=query"
    return f"{name}@{checkpoint}?" + "&".join(filter(None, (*settings, multilingual)))


def show_questions(questions: Sequence[Mapping[str, Any]], lang: str) -> Run:
    """The questions as a run, each with its passages in the order given."""
    queries = [Item(each["id"], each["query"], lang=lang) for each in questions]
    passages = {
        f"{each['id']}#{place}": Item(f"{each['id']}#{place}", passage["text"], lang=lang)
        for each in questions
        for place, passage in enumerate(each["passages"])
    }
    hits = {
        each["id"]: [(f"{each['id']}#{place}", -float(place)) for place in range(len(each["passages"]))]
        for each in questions
    }
    return Run.of(queries).ranking(hits, InMemoryDocuments(passages))


def ask(stage: Rerank, questions: Sequence[Mapping[str, Any]], lang: str) -> dict[str, Any]:
    """What one method makes of the questions of a language."""
    run = stage(show_questions(questions, lang))
    record = run.manifest.records[-1]
    first = [int(run[each["id"]][0].id.rpartition("#")[2]) for each in questions]
    masses = read_mass(record.counts)
    return {
        "questions": len(questions),
        "right": [place == each["answer"] for place, each in zip(first, questions, strict=True)],
        "first": first,
        "label_mass": {code: round(mean, 3) for code, (_, mean) in masses.items()},
        "counts": dict(record.counts),
        "seconds": record.seconds,
    }


def measure_priors(stages: Mapping[str, Rerank], langs: Sequence[str], places: int) -> list[dict[str, Any]]:
    """What the judge chooses of each prompt that chooses, where query and passages say nothing."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for stage in stages.values():
        prompt, judge = stage.prompt, stage.judge
        for lang in ("eng", *(each for each in langs if each in prompt.words)):
            if prompt.asks != "choose" or prompt.think or (prompt.name, lang) in found:
                continue
            size = min(places, prompt.most)
            wording = prompt.in_language(lang)
            labels = [each + wording.closing for each in wording.labels[: size if prompt.most > 1 else None]]
            prior = find_prior(wording.message, judge, labels, size, Counter())
            shares = [round(float(each), 3) for each in np.exp(prior)]
            found[prompt.name, lang] = {"prompt": prompt.name, "language": lang, "labels": labels, "prior": shares}
    return list(found.values())


def count_places(parts: Iterable[Mapping[str, Any]], places: int) -> str:
    first = [place for part in parts for place in part["first"]]
    return " ".join(str(first.count(place)) for place in range(places))


def make_tables(report: Mapping[str, Any]) -> Iterator[Table]:
    langs, places = report["languages"], report["places"]
    rows = []
    for method, parts in report["methods"].items():
        right = {lang: sum(part["right"]) for lang, part in parts.items()}
        number = sum(part["questions"] for part in parts.values())
        p = binomtest(sum(right.values()), number, 1 / places, alternative="greater").pvalue
        masses = [mass for part in parts.values() for mass in part["label_mass"].values()]
        rows.append([
            method, *(str(right.get(lang, "")) for lang in langs), f"{sum(right.values())} of {number}", show_p(p),
            f"{min(masses):.2f}" if masses else "", count_places(parts.values(), places),
            str(round(sum(part["counts"].get("calls", 0) for part in parts.values()) / number, 1)),
            f"{sum(part['seconds'] for part in parts.values()) / number:.1f}",
        ])  # fmt: skip
    head = ("method", *langs, "right", "p", "label mass", "first, by place", "calls", "seconds")
    yield Table(head, rows)
    if len(langs) > 1:
        cells = [
            [method, *(count_places([parts[lang]], places) if lang in parts else "" for lang in langs)]
            for method, parts in report["methods"].items()
        ]
        yield Table(("method", *langs), cells, "Which place came first, by language")
    if report["priors"]:
        most = max(len(each["prior"]) for each in report["priors"])
        cells = [
            [each["prompt"], each["language"], *(f"{share:.2f}" for share in each["prior"])]
            + [""] * (most - len(each["prior"]))
            for each in report["priors"]
        ]
        heads = ("prompt", "language", *(f"label {n}" for n in range(1, most + 1)))
        yield Table(heads, cells, "Where there is nothing to choose")


def main() -> int:
    options = parse_arguments()
    questions = read_questions(options.questions, options.langs, options.each)
    places = len(next(iter(questions.values()))[0]["passages"])
    stages, failed = {}, {}
    for method in options.methods:
        try:
            stages[method] = load_reranker(write_spec(method, options.judge, places), device=options.device)
        except InputError as error:
            failed[method] = str(error)
    for stage in stages.values():
        stage.judge.sample = 1  # type: ignore[attr-defined]  # the label mass of every question, where judges sample
    methods: dict[str, dict[str, Any]] = {}
    with nullcontext() if options.out is None else closing(Journal(options.out)) as journal:
        for method, stage in stages.items():
            for lang, some in questions.items():
                asked = hashlib.blake2b(json.dumps(some).encode(), digest_size=8).hexdigest()
                key = f"{stage.fingerprint} {asked}"
                part = journal.get(key) if journal is not None else None
                if part is None:
                    print(f"asking {method} in {lang}", file=sys.stderr, flush=True)
                    try:
                        part = ask(stage, some, lang)
                    except InputError as error:
                        failed[f"{method} in {lang}"] = str(error)
                        continue
                    if journal is not None:
                        journal.put(key, part, {})
                methods.setdefault(method, {})[lang] = part
    report = {
        "judge": {stage.judge.name: stage.judge.revision for stage in stages.values()},
        "questions": hashlib.sha256(options.questions.read_bytes()).hexdigest(),
        "languages": list(questions),
        "places": places,
        "passage_tokens": PASSAGE_TOKENS,
        "methods": methods,
        "failed": failed,
        "priors": measure_priors(stages, list(questions), places) if options.priors else [],
    }
    tables = list(make_tables(report))
    notes = [
        f"Of {places} passages of at most {PASSAGE_TOKENS} tokens the answer is to come first; p: binomial test against "
        f"chance. Label mass: the least of the languages. Calls and seconds are for a question."
    ]
    save(options.save, report, tables, notes)
    for table in tables:
        print(table.markdown() + "\n", file=sys.stderr if options.json else sys.stdout)
    for what, why in failed.items():
        print(f"{what}: {why}", file=sys.stderr)
    if options.json:
        print(json.dumps(report, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(run_guarded(main))
