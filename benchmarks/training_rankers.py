"""What a small ranker gains by training: reranking of a test half, and the best of a set that GRPO was not shown."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crosslens.errors import InputError
from crosslens.evaluation.evaluate import evaluate
from crosslens.files import read_json, write_json
from crosslens.indexes.registry import open_index
from crosslens.items import Item, hash_json
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.judges import load_judge
from crosslens.multilingual.prompts import load_prompt, split_method
from crosslens.multilingual.reranking.plan import load_reranker
from crosslens.runs import Qrels, Run
from crosslens.training.data.examples import Example, load_examples, write_examples
from crosslens.training.data.translations import name_page
from crosslens.training.ranker.lessons import draw_question
from crosslens.training.ranker.recipe import RankerRecipe
from crosslens.training.ranker.rewards import list_right
from crosslens.training.recipe import read_recipe
from measurements import Table, save, show_p, show_settings, tabulate
from training_adapt import set_depth, split_named

MEASURES = ("nDCG@10", "nDCG@20")
PROGRAM = (sys.executable, "-c", "from crosslens.commands.app import script; script()")
FIRST = "first stage"


def measure_ranker(options: argparse.Namespace) -> dict[str, Any]:
    """Train a ranker, and rerank the same candidates with its base and with it."""
    card = train(options, options.data)
    collection = load_collection(options.collection)
    judged = collection.qrels()
    topics = sorted(topic for topic, grades in judged.items() if any(grade > 0 for grade in grades.values()))
    chosen = draw(topics, options.queries)
    queries = [query for query in collection.queries() if query.id in set(chosen)]
    rerankers = {FIRST: "", "base": options.base, "trained": card["spec"], **dict(map(split_named, options.against))}
    runs = {name: search(queries, spec, options) for name, spec in rerankers.items()}
    some: Qrels = {topic: judged[topic] for topic in chosen}
    langs = {item.id: item.lang for item in collection.docs() if item.lang}
    table = evaluate(
        {name: run for name, (run, _) in runs.items()}, some, MEASURES, per="doc_lang", baseline=FIRST,
        test="randomisation", doc_langs=langs,
    ).to_json()  # fmt: skip
    pair = {name: runs[name][0] for name in ("base", "trained")}
    gain = evaluate(pair, some, MEASURES, baseline="base", test="randomisation")
    shown = tabulate(table, [(measure, group) for measure in MEASURES for group in table["queries"]], p=True)
    columns = [*shown.columns, "seconds a query"]
    shown = Table(columns, [[*row, f"{runs[row[0]][1] / len(chosen):.2f}"] for row in shown.rows])
    compared = gain.comparison("trained", MEASURES[1])
    assert compared is not None
    notes = [
        f"{options.base} on {card['examples']['examples']:,} examples, {card['steps']} steps, {card['seconds'] / 60:.0f} minutes; "
        f"trained against base: {MEASURES[1]} {compared.difference:+.3f}, p {show_p(compared.corrected)}. p in the "
        f"table: paired randomisation tests against the first stage, Holm-corrected over the others."
    ]
    print("\n".join([shown.markdown(), *notes]), file=sys.stderr)
    figures = {"settings": show_settings(options), "card": card, "table": table, "gain": gain.to_json()}
    save(options.save, figures, [shown], notes)
    return figures


def measure_grpo(options: argparse.Namespace) -> dict[str, Any]:
    """Teach a ranker by GRPO, and count how often it and its base find the best of a set in held-out examples."""
    examples = draw_examples(load_examples(options.data), options.held_out)
    files = {}
    options.out.mkdir(parents=True, exist_ok=True)
    for name, part in examples.items():
        files[name] = options.out / f"{name}.jsonl.gz"
        if not files[name].exists():
            write_examples(files[name], part, {"of": str(options.data)})
    recipe = read_recipe(RankerRecipe, options.recipe)
    card = train(options, str(files["train"]))
    method, spec = split_method(options.base, "--base", "PROMPT@FAMILY:CHECKPOINT")
    _, after = split_method(card["spec"], "spec", "PROMPT@FAMILY:CHECKPOINT")
    found = {}
    for name, judge in (("base", str(spec)), ("trained", str(after))):
        path = options.out / f"right-{hash_json([name, method, judge, recipe.to_json(), options.held_out])}.json"
        if not path.exists():
            write_json(path, count_right(method, judge, examples["held out"], recipe))
        found[name] = read_json(path)
    rewards = [point for point in card["curve"] if "reward" in point]
    quarter = max(1, len(rewards) // 4)
    parts = {"first quarter": rewards[:quarter], "last quarter": rewards[-quarter:]}
    reward = {name: sum(each["reward"] for each in part) / len(part) for name, part in parts.items()}
    rows = [
        [name, f"{sum(right)} of {len(right)}", f"{sum(right) / len(right):.3f}", f"{reward[part]:.3f}"]
        for (name, right), part in zip(found.items(), reward, strict=True)
    ]
    wins, losses = (
        sum(a > b for a, b in zip(found[one], found[other], strict=True))
        for one, other in (("trained", "base"), ("base", "trained"))
    )
    from scipy.stats import binomtest

    p = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    table = Table(["ranker", "best found in held-out sets", "share", "mean reward while training"], rows)
    notes = [
        f"Sets of {recipe.group}, {recipe.batch} prompts with {recipe.samples} answers a step, {card['steps']} steps, "
        f"{card['seconds'] / 60:.0f} minutes; the rewards are those of the first and of the last quarter of the steps. "
        f"{wins} sets won and {losses} lost: p {show_p(p)} (sign test)."
    ]
    print("\n".join([table.markdown(), *notes]), file=sys.stderr)
    if options.plot:
        plot_rewards(rewards, options.plot)
    figures = {
        "settings": show_settings(options), "recipe": recipe.to_json(), "card": card, "right": found, "p": p,
    }  # fmt: skip
    save(options.save, figures, [table], notes)
    return figures


def train(options: argparse.Namespace, data: str) -> dict[str, Any]:
    """The card of the result; the command finds one that it has made, and refuses it with other `--steps`."""
    output = options.out / "ranker"
    more = ["--steps", str(options.steps)] if options.steps else []
    call = [
        "train", "ranker", data, "--base", options.base, "-o", str(output), "--recipe", options.recipe, *more,
        "--force", "--json",
    ]  # fmt: skip
    print(f"crosslens {shlex.join(call)}", file=sys.stderr, flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    subprocess.run([*PROGRAM, *call], check=True, stdout=subprocess.DEVNULL)
    return dict(read_json(output / "training.json"))


def search(queries: Sequence[Item], reranker: str, options: argparse.Namespace) -> tuple[Run, float]:
    """The first of dense search, perhaps reranked, and the seconds; kept."""
    path = options.out / f"{hash_json([reranker, options.depth, sorted(query.id for query in queries)])}.run"
    took = path.with_suffix(".json")
    if not took.exists():
        print(reranker or FIRST, file=sys.stderr, flush=True)
        index = open_index(options.index)
        began = time.monotonic()
        run = index.search(Run.of(queries), options.depth, mode="dense")
        if reranker:
            spec = reranker if reranker in ("default", "best") else set_depth(reranker, options.depth)
            run = load_reranker(spec)(run)
        run.to_trec(path)
        write_json(took, time.monotonic() - began)
    return Run.from_trec(path), float(read_json(took))


def draw(names: Sequence[str], count: int) -> list[str]:
    """So many of the names, drawn by their hash; 0 for all."""
    return sorted(names, key=lambda name: hash_json(name))[: count or None]


def draw_examples(examples: Sequence[Example] | Any, held: int) -> dict[str, list[Example]]:
    """Examples to train on, and such as have no query and no positive in common with them."""
    usable = [each for each in examples if each.negatives]
    order = sorted(usable, key=lambda each: hash_json(each.query.id))
    kept, rest = order[:held], order[held:]
    pages = {name_page(item) for each in kept for item in each.positives}
    train = [each for each in rest if not pages & {name_page(item) for item in each.positives}]
    if len(kept) < held or not train:
        raise InputError(f"{len(usable)} examples have negatives, too few to hold {held} out")
    return {"held out": kept, "train": train}


def count_right(method: str, spec: str, examples: Sequence[Example], recipe: RankerRecipe) -> list[int]:
    """Of each set whether the judge's likeliest label is the best document's, 1 or 0."""
    judge, prompt = load_judge(spec), load_prompt(method)
    right = []
    for place, example in enumerate(examples):
        worded, drawn = draw_question(prompt, example, recipe, place)
        message = worded.message(drawn.query, drawn.documents, judge.modalities)
        scores = judge.choose([message], worded.labels[: len(drawn.documents)])
        right.append(int(int(scores[0].argmax()) in list_right(worded, drawn)))
    return right


def plot_rewards(curve: Sequence[dict[str, float]], path: Path) -> None:
    """The reward of each step and its mean over ten."""
    import matplotlib.pyplot as plt
    import numpy as np

    steps, rewards = ([each[key] for each in curve] for key in ("step", "reward"))
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    axes.plot(steps, rewards, color="0.75", linewidth=1, label="a step")
    width = min(10, len(rewards))
    axes.plot(steps[width - 1 :], np.convolve(rewards, np.ones(width) / width, "valid"), label=f"mean of {width}")
    axes.set(xlabel="step", ylabel="reward", ylim=(0, 1))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
