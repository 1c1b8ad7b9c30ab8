"""What does training make of two towers that packages carry, an image classifier and a multilingual text encoder?

    python benchmarks/collections/tuxpaint_stamps.py /tmp/stamps --langs eng,rus,zho
    python benchmarks/collections/emoji.py /tmp/emoji --langs eng,rus,zho
    python benchmarks/pictures_training.py /tmp/stamps /tmp/emoji --save docs/measured/lit.json

`offline:conse` is trained by LiT (the vision tower locked) on the captions of the stamps' dev half and the names of the
emoji's, and then finds the pictures for the captions of the test half, as the base does. An emoji is left out where one
of its names is a caption of the test half but for case, punctuation and an article. Two sets of pictures are searched:
all, among which are those that were learnt from and for which a trained model knows the captions, and those alone that
it never saw. The photos of the collection `demo` tell if it still knows photos. Everything was chosen on the dev half
(`--split`: it trains on two thirds of its pictures and reports on the others). Prints tables on stderr and one JSON
object on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from crosslens.commands.console import run_guarded
from crosslens.encoders.base import Encoder, encode_matrix
from crosslens.encoders.registry import load_encoder
from crosslens.evaluation.measures import measure_rankings, parse_measure
from crosslens.evaluation.significance import compute_p
from crosslens.indexes.kinds.flat import FlatSearcher
from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from crosslens.runs import Qrels
from crosslens.training.data.checks import normalise
from crosslens.training.data.examples import Example, load_examples, write_examples
from crosslens.training.encoder.train import train_encoder
from crosslens.training.recipe import EncoderRecipe, read_recipe
from measurements import Table, add_save, save, show_p

BASE = "offline:conse"
MEASURES = [parse_measure(name) for name in ("nDCG@20", "R@10")]
ARTICLES = ("a ", "an ", "the ")
DEPTH = 100
Values = dict[str, dict[str, float]]  # measure -> query -> value


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stamps", type=Path, metavar="STAMPS", help="made by tuxpaint_stamps.py")
    parser.add_argument(
        "emoji", type=Path, metavar="EMOJI", nargs="?", help="made by emoji.py; without it stamps alone"
    )
    parser.add_argument("--recipe", default="lit", help="(%(default)s)")
    parser.add_argument("--steps", type=int, help="(as the recipe has it)")
    parser.add_argument("--split", action="store_true", help="to choose on: report on a third of the dev half")
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep the checkpoint")
    add_save(parser)
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    recipe = read_recipe(EncoderRecipe, options.recipe, steps=options.steps)
    half = load_collection(options.stamps / "caption-to-picture" / ("dev" if options.split else "test"))
    learnt = list(load_examples(options.stamps / "caption-to-picture" / "dev"))
    queries, qrels = list(half.queries()), half.qrels()
    if options.split:
        learnt, queries = split(learnt, queries)
    asked = {strip(query.text or "") for query in queries}
    names = list(load_examples(options.emoji / "dev")) if options.emoji else []
    known = {each.positives[0].id for each in names if strip(each.query.text or "") in asked}
    names = [each for each in names if each.positives[0].id not in known]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "captions.jsonl")
        write_examples(data, [*learnt, *names], {"stamps": len(learnt), "emoji": len(names)})
        made = train_encoder(str(data), BASE, options.output or Path(folder, "made"), recipe, device="cpu")
        pictures = list(half.docs())
        seen = {document.id for example in learnt for document in example.positives}
        sets = {"all": pictures, "unseen": [each for each in pictures if each.id not in seen]}
        specs = {"ConSE": BASE, "trained": made.spec}
        encoders = {name: load_encoder(spec, device="cpu") for name, spec in specs.items()}
        found = {name: measure_sets(encoder, queries, sets, qrels) for name, encoder in encoders.items()}
        photos = {name: find_photos(encoder) for name, encoder in encoders.items()}
    langs = {query.id: query.lang or "" for query in queries}
    tables = [tabulate(which, len(some), found, langs) for which, some in sets.items()] + [tabulate_photos(photos)]
    for table in tables:
        print(table.markdown() + "\n", file=sys.stderr)
    note = (
        f"{BASE} by the recipe `{options.recipe}`, {made.card['steps']} steps of {recipe.batch}: {len(learnt)} captions of "
        f"{len(seen)} stamps and {len(names)} names of emoji ({len(known)} emoji left out, of a name that is asked for), "
        f"{made.card['seconds']:.0f} s."
    )
    figures = {
        "settings": vars(options) | {"save": None},
        "card": {key: made.card[key] for key in ("recipe", "steps", "seconds", "examples_per_second", "peak_gib")},
        "means": {name: {which: sum_up(each, langs) for which, each in of.items()} for name, of in found.items()},
        "photos": {name: sum_up(each, {}) for name, each in photos.items()},
    }
    save(options.save, json.loads(json.dumps(figures, default=str)), tables, [note])
    print(json.dumps(figures, indent=1, default=str))
    return 0


def split(examples: Sequence[Example], queries: Sequence[Item]) -> tuple[list[Example], list[Item]]:
    """The examples of two thirds of the pictures, and the queries of the others; one picture is in one part alone."""
    part: dict[str, str] = {}

    def find(picture: str) -> str:
        while part.setdefault(picture, picture) != picture:
            picture = part[picture]
        return picture

    for example in examples:
        for document in example.positives[1:]:
            part[find(document.id)] = find(example.positives[0].id)
    groups = sorted({find(example.positives[0].id) for example in examples})
    held = set(np.random.default_rng(0).permutation(groups)[: len(groups) // 3].tolist())
    asked = {example.query.id for example in examples if find(example.positives[0].id) in held}
    return [each for each in examples if each.query.id not in asked], [each for each in queries if each.id in asked]


def strip(text: str) -> str:
    """A caption without case, punctuation and an English article."""
    made = normalise(text)
    return next((made.removeprefix(article) for article in ARTICLES if made.startswith(article)), made)


def measure_sets(
    encoder: Encoder, queries: Sequence[Item], sets: Mapping[str, Sequence[Item]], qrels: Qrels
) -> dict[str, Values]:
    """The measures of exact search in each set of pictures, of the queries that have an answer in it."""
    pictures = sorted({item.id: item for some in sets.values() for item in some}.values(), key=lambda item: item.id)
    shown, asked = encode_matrix(encoder, pictures, "document"), encode_matrix(encoder, queries, "query")
    found = {}
    for which, some in sets.items():
        there = {item.id for item in some}
        rows = [row for row, item in enumerate(pictures) if item.id in there]
        judged = {
            query.id: kept
            for query in queries
            if (kept := {id: grade for id, grade in qrels.get(query.id, {}).items() if id in there and grade > 0})
        }
        places, scores = FlatSearcher(shown[rows], "cpu").nearest(asked, min(DEPTH, len(rows)))
        hits = {
            query.id: [(pictures[rows[place]].id, float(score)) for place, score in zip(at, of, strict=True)]
            for query, at, of in zip(queries, places.tolist(), scores.tolist(), strict=True)
            if query.id in judged
        }
        found[which] = measure_rankings(MEASURES, judged, hits)
    return found


def find_photos(encoder: Encoder) -> Values:
    """The demo's queries in words, among its photos."""
    demo = load_collection("demo")
    photos = [item for item in demo.docs() if item.image is not None]
    asked = [query for query in demo.queries() if query.text and query.image is None]
    return measure_sets(encoder, asked, {"photos": photos}, demo.qrels())["photos"]


def sum_up(values: Values, langs: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """measure -> language, or all -> mean."""
    return {
        name: {lang: float(np.mean(those)) for lang, those in by_language(of, langs)} for name, of in values.items()
    }


def by_language(values: Mapping[str, float], langs: Mapping[str, str]) -> Iterator[tuple[str, list[float]]]:
    yield "all", list(values.values())
    for lang in sorted({langs[query] for query in values if query in langs}):
        yield lang, [value for query, value in values.items() if langs[query] == lang]


def tabulate(which: str, count: int, found: Mapping[str, Mapping[str, Values]], langs: Mapping[str, str]) -> Table:
    """A row a system, and the p-value of the difference in the measure over all queries (randomisation)."""
    means = {name: sum_up(of[which], langs) for name, of in found.items()}
    names = [(str(measure), lang) for measure in MEASURES for lang in means["ConSE"][str(measure)]]
    asked = len(found["ConSE"][which][str(MEASURES[0])])
    rows = []
    for name, of in found.items():
        p = None
        if name != "ConSE":
            pairs = [
                (of[which][str(MEASURES[0])][q], value) for q, value in found["ConSE"][which][str(MEASURES[0])].items()
            ]
            p = compute_p(np.array([after - before for after, before in pairs]), "randomisation")
        rows.append([name, *(f"{means[name][measure][lang]:.3f}" for measure, lang in names), show_p(p)])
    title = f"{asked} captions to {'all' if which == 'all' else 'the'} {count} pictures" + (
        "" if which == "all" else " that were not learnt from"
    )
    return Table(["", *(f"{measure}, {lang}" for measure, lang in names), "p"], rows, title)


def tabulate_photos(photos: Mapping[str, Values]) -> Table:
    means = {name: sum_up(of, {}) for name, of in photos.items()}
    asked = len(next(iter(photos.values()))[str(MEASURES[0])])
    rows = [[name, *(f"{of[str(measure)]['all']:.3f}" for measure in MEASURES)] for name, of in means.items()]
    return Table(["", *map(str, MEASURES)], rows, f"{asked} queries of the demo, in 14 languages, to its 23 photos")


if __name__ == "__main__":
    sys.exit(run_guarded(main))
