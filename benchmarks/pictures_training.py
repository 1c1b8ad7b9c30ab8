"""What does training make of two towers that packages carry, an image classifier and a multilingual text encoder?

    python benchmarks/collections/tuxpaint_stamps.py /tmp/stamps --langs eng,rus,zho
    python benchmarks/collections/emoji.py /tmp/emoji --langs eng,rus,zho
    python benchmarks/pictures_training.py /tmp/stamps /tmp/emoji --save docs/measured/lit.json

`offline:conse` is trained by LiT (the vision tower locked): first the projections of both towers, on the captions of the
stamps' dev half (`lit-heads`), and then the text tower as well (`lit`), on these and on translations: captions of a
stamp and names of an emoji in other languages are to find the English ones. It then finds the pictures for the captions
of the test half, as the base does. An emoji is left out where one of its names is a caption of the test half but for
case, punctuation and an article. Two sets of pictures are searched: all, among which are those that were learnt from and
for which a trained model knows the captions, and those alone that it never saw. The photos of the collection `demo` show
whether it still knows photos. Everything was chosen on the dev half (`--split`: it trains on two thirds of its pictures
and reports on the others). Prints tables on stderr and one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from crosslens.commands.console import run_guarded
from crosslens.encoders.base import Encoder, encode_matrix
from crosslens.encoders.registry import load_encoder
from crosslens.evaluation.evaluate import evaluate
from crosslens.indexes.kinds.searcher import FlatSearcher
from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from crosslens.runs import Qrels, Run
from crosslens.training.data.checks import normalise
from crosslens.training.data.examples import Example, load_examples, write_examples
from crosslens.training.encoder.train import train_encoder
from crosslens.training.recipe import EncoderRecipe, read_recipe
from measurements import Table, add_save, save, show_settings, tabulate

BASE = "offline:conse"
RECIPES = ("lit-heads", "lit")
MEASURES = ("nDCG@20", "R@10")
ARTICLES = ("a ", "an ", "the ")
MOST_GROUPS = 4  # of languages that a table has columns for


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stamps", type=Path, metavar="STAMPS", help="made by tuxpaint_stamps.py")
    parser.add_argument(
        "emoji", type=Path, metavar="EMOJI", nargs="?", help="made by emoji.py; without it stamps alone"
    )
    parser.add_argument("--steps", type=int, help="of each recipe (as it has them)")
    parser.add_argument("--split", action="store_true", help="to choose on: report on a third of the dev half")
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep the checkpoints")
    add_save(parser)
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    half = load_collection(options.stamps / "caption-to-picture" / ("dev" if options.split else "test"))
    learnt = list(load_examples(options.stamps / "caption-to-picture" / "dev"))
    queries, qrels = list(half.queries()), half.qrels()
    if options.split:
        learnt, queries = split(learnt, queries)
    asked = {strip(query.text or "") for query in queries}
    names = list(load_examples(options.emoji / "dev")) if options.emoji else []
    known = {each.positives[0].id for each in names if strip(each.query.text or "") in asked}
    names = [each for each in names if each.positives[0].id not in known]
    pairs = [*pair_translations(learnt, "stamps"), *pair_translations(names, "emoji")]
    with tempfile.TemporaryDirectory() as folder:
        made_in = options.output or Path(folder)
        made_in.mkdir(exist_ok=True)
        specs, cards = {"ConSE": BASE}, {}
        for name, examples in zip(RECIPES, (learnt, [*learnt, *pairs]), strict=True):
            data = Path(folder, f"{name}.jsonl")
            write_examples(data, examples, {"stamps": len(learnt), "translations": len(examples) - len(learnt)})
            recipe = read_recipe(EncoderRecipe, name, steps=options.steps)
            made = train_encoder(str(data), list(specs.values())[-1], made_in / name, recipe, device="cpu")
            specs[name] = made.spec
            cards[name] = {
                key: made.card[key] for key in ("recipe", "steps", "seconds", "examples_per_second", "peak_gib")
            }
        encoders = {name: load_encoder(spec, device="cpu") for name, spec in specs.items()}
        pictures = list(half.docs())
        runs = {name: search(encoder, queries, pictures) for name, encoder in encoders.items()}
        photos, asked_photos, judged_photos = read_photos()
        found = {name: search(encoder, asked_photos, photos) for name, encoder in encoders.items()}
    seen = {document.id for example in learnt for document in example.positives}
    unseen = {each.id for each in pictures} - seen
    evaluations = {
        f"all {len(pictures)} stamps": compare(runs, {each.id for each in pictures}, qrels),
        f"the {len(unseen)} stamps that were not learnt from": compare(runs, unseen, qrels),
        f"the demo's {len(photos)} photos": compare(found, {each.id for each in photos}, judged_photos),
    }
    tables = [tabulate_pictures(title, table) for title, table in evaluations.items()]
    for table in tables:
        print(table.markdown() + "\n", file=sys.stderr)
    taken = ", ".join(f"`{name}` {card['steps']} steps in {card['seconds']:.0f} s" for name, card in cards.items())
    note = (
        f"{BASE}, trained by {taken}: {len(learnt)} captions of {len(seen)} stamps, and {len(pairs)} translations of captions "
        f"and of names of emoji ({len(known)} emoji left out, of a name that is asked for). p: paired randomisation tests "
        "against ConSE, Holm-corrected."
    )
    figures = {"settings": show_settings(options), "cards": cards, "evaluations": evaluations}
    save(options.save, figures, tables, [note])
    print(json.dumps(figures, indent=1))
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


def pair_translations(examples: Sequence[Example], source: str) -> list[Example]:
    """What a picture is called in other languages, as queries whose document is what it is called in English."""
    called: dict[str, dict[str, Item]] = {}
    for example in examples:
        called.setdefault(example.positives[0].id, {})[example.query.lang or ""] = example.query
    return [
        Example(
            Item(f"{source}-{query.id}", query.text, lang=lang),
            (Item(f"{source}-{langs['eng'].id}", langs["eng"].text, lang="eng"),),
        )
        for langs in called.values()
        if "eng" in langs
        for lang, query in langs.items()
        if lang != "eng"
    ]


def strip(text: str) -> str:
    """A caption without case, punctuation and an English article."""
    made = normalise(text)
    return next((made.removeprefix(article) for article in ARTICLES if made.startswith(article)), made)


def read_photos() -> tuple[list[Item], list[Item], Qrels]:
    """The demo's photos, its queries in words, and their judgements."""
    demo = load_collection("demo")
    photos = [item for item in demo.docs() if item.image is not None]
    return photos, [query for query in demo.queries() if query.text and query.image is None], demo.qrels()


def search(encoder: Encoder, queries: Sequence[Item], pictures: Sequence[Item]) -> Run:
    """The ranking of all pictures for each query, by exact search."""
    shown, asked = encode_matrix(encoder, pictures, "document"), encode_matrix(encoder, queries, "query")
    places, scores = FlatSearcher(shown, "cpu").nearest(asked, len(pictures))
    return Run.of(queries).ranking({
        query.id: [(pictures[place].id, float(score)) for place, score in zip(at, of, strict=True)]
        for query, at, of in zip(queries, places.tolist(), scores.tolist(), strict=True)
    })  # fmt: skip


def compare(runs: Mapping[str, Run], among: Container[str], qrels: Qrels) -> dict[str, Any]:
    """The evaluation, JSON-able, of the rankings of the pictures `among` those meant, for queries with an answer there."""
    left = {
        name: run.ranking({query.id: [hit for hit in hits if hit.id in among] for query, hits in run})
        for name, run in runs.items()
    }
    asked = {query.id for run in runs.values() for query in run.queries}
    judged = {
        query: kept
        for query, grades in qrels.items()
        if query in asked and (kept := {id: grade for id, grade in grades.items() if id in among and grade > 0})
    }
    table = evaluate(left, judged, MEASURES, per="lang", baseline="ConSE", test="randomisation")
    return dict(table.to_json())


def tabulate_pictures(title: str, table: Mapping[str, Any]) -> Table:
    """By both measures over all queries, and by the first in each language, where these are few."""
    groups = [group for group in table["queries"] if group != "all"]
    columns = [(measure, "all") for measure in MEASURES]
    if len(groups) <= MOST_GROUPS:
        columns += [(MEASURES[0], group) for group in groups]
    return tabulate(table, columns, p=True, title=title)


if __name__ == "__main__":
    sys.exit(run_guarded(main))
