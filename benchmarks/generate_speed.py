"""How fast do causal judges write? Their own loop against `generate` of transformers, on the same prompts, in one run.

    python benchmarks/generate_speed.py --judge offline:gemma
    python benchmarks/generate_speed.py --judge offline:qwen-1.5b --collection DIR --out parts.jsonl

Prompts show passages of a collection, of 100 to 300 tokens. *ours* is what a judge does; *batches* is `generate` in
batches of 2,048 tokens, answers included, as judges did before; *alone* is `generate` prompt by prompt, on a sample. All
write greedily; for the task `samples`, each of an eighth of the prompts is sampled eight times. Reported are tokens a
second, CPU time a token (which other work on the machine changes less), and how much of the texts is that of *alone*, up
to the first difference: in bfloat16 the size of a batch changes rounding, in float32 nothing. What is measured is kept
in `--out` line by line, and the next run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from crosslens.commands.console import run_guarded
from crosslens.encoders.batching import plan_batches
from crosslens.encoders.pooling import collate
from crosslens.errors import InputError
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.judges import Completion, load_judge
from crosslens.multilingual.judges.base import Sampling
from crosslens.multilingual.judges.causal import CausalJudge
from crosslens.multilingual.judges.messages import Message
from crosslens.multilingual.judges.sampling import make_keys
from crosslens.multilingual.judges.tokenized import count_common
from kept_lines import add_out, append_line, read_lines
from measurements import Table, add_save, save

FORMER = 2048  # tokens of a batch
LENGTHS = (100, 300)  # tokens of a passage
SAMPLES = 8
REQUEST = "\n\nWrite what else should be said about this, in its language."
TASKS = {"greedy": ("ours", "batches", "alone"), "samples": ("ours", "batches")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", default="offline:gemma", metavar="SPEC")
    parser.add_argument("--collection", default="demo")
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), default=list(TASKS))
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64, help="new ones at most (%(default)s)")
    parser.add_argument("--alone", type=int, default=16, help="prompts that are asked alone (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin nothing after so many")
    add_out(parser)
    add_save(parser)
    options = parser.parse_args()
    lines = read_lines(options.out)
    measure(lines, options)
    report = summed(lines, options)
    table = tabled(report)
    print(table.markdown(), file=sys.stderr)
    shown = (
        f"{options.prompts} prompts with passages of {LENGTHS[0]} to {LENGTHS[1]} tokens, at most {options.tokens} new "
        f"ones each; *as alone* is the share of a text up to its first difference from what is written alone."
    )
    save(options.save, report, [table], [shown])
    print(json.dumps(report, indent=1, ensure_ascii=False))
    return 0


def measure(lines: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Time what is not among the `lines` yet; adds to them, and to the file of them."""
    begun = time.monotonic()
    done = {(line["judge"], line["task"], line["way"]) for line in lines}
    left = [(task, way) for task in options.tasks for way in TASKS[task] if (options.judge, task, way) not in done]
    if not left:
        return
    judge = load_judge(options.judge, device="cpu")
    if not isinstance(judge, CausalJudge):
        raise InputError(f"{options.judge} is no causal language model in this process: there is nothing to compare")
    prompts = choose_prompts(judge, options.collection, options.prompts, options.seed)
    judge.generate(prompts[:2], max_new_tokens=2)  # the first pass is slower than those that follow it
    for task, way in left:
        if time.monotonic() - begun > options.seconds:
            return
        how = {"max_new_tokens": options.tokens, "seed": options.seed, "temperature": 0.7 if task == "samples" else 0.0}
        asked = prompts if task == "greedy" else prompts[::SAMPLES] * SAMPLES
        places = list(range(len(asked)))
        if way == "alone":
            places = places[:: max(1, len(places) // options.alone)]
        ways: dict[str, Callable[[], Sequence[Completion]]] = {
            "ours": lambda asked=asked, how=how: judge.generate(asked, **how),
            "batches": lambda asked=asked, how=how: generate(judge, asked, Sampling(**how), FORMER),
            "alone": lambda asked=asked, how=how, places=places: generate(
                judge, [asked[place] for place in places], Sampling(**how), 1
            ),
        }
        started, spent = time.perf_counter(), time.process_time()
        answers = ways[way]()
        seconds, cpu = time.perf_counter() - started, time.process_time() - spent
        line = {
            "judge": options.judge,
            "task": task,
            "way": way,
            "seconds": seconds,
            "cpu_seconds": cpu,
            "tokens": sum(each.tokens for each in answers),
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "texts": {str(place): each.text for place, each in zip(places, answers, strict=True)},
        }
        lines.append(line)
        append_line(options.out, line)
        print(f"{options.judge} {task} {way}: {line['tokens'] / seconds:.1f} tokens a second", file=sys.stderr)


def choose_prompts(judge: CausalJudge, collection: str, number: int, seed: int) -> list[Message]:
    """Requests about texts of the collection, whose lengths are spread evenly, in an order that is drawn."""
    drawn = random.Random(seed)
    texts = [item.text for item in load_collection(collection).docs() if item.text]
    drawn.shuffle(texts)
    passages: list[str] = []
    for n in range(number):
        length = LENGTHS[0] + (LENGTHS[1] - LENGTHS[0]) * n // max(1, number - 1)
        whole = ""
        while judge.tokens.count(whole) < length:  # short texts follow each other
            if not texts:
                raise InputError(f"the texts of {collection} are too few for {number} prompts: lower --prompts")
            whole += texts.pop() + "\n"
        passages.append(judge.tokens.cut(whole, length))
    drawn.shuffle(passages)
    return [Message((passage, REQUEST), chat="auto") for passage in passages]


def generate(judge: CausalJudge, prompts: Sequence[Message], sampling: Sampling, budget: int) -> list[Completion]:
    """Completions by `generate` of transformers, in length-sorted batches."""
    starts, _ = judge.prepare_prompts(prompts, sampling.max_new_tokens)
    keys = make_keys(prompts, sampling)
    answers: dict[int, Completion] = {}
    for rows in plan_batches([len(start) + sampling.max_new_tokens for start in starts], budget):
        inputs = collate([starts[row] for row in rows], fill=judge.generator.pad, side="left")
        written = judge.generator.write(inputs, sampling, [keys[row] for row in rows])
        answers |= dict(zip(rows, written, strict=True))
    return [answers[row] for row in range(len(prompts))]


def summed(lines: Sequence[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Rates of all judges that the lines are of, and how much of the texts is the same."""
    judges: dict[str, Any] = {}
    for line in lines:
        by = {each["way"]: each for each in lines if (each["judge"], each["task"]) == (line["judge"], line["task"])}
        rate = line["tokens"] / line["seconds"]
        figures: dict[str, Any] = {"tokens_per_second": round(rate, 2), "seconds": round(line["seconds"], 1)}
        figures |= {"cpu_ms_per_token": round(1000 * line["cpu_seconds"] / max(line["tokens"], 1), 2)}
        figures |= {"tokens": line["tokens"], "prompts": len(line["texts"]), "threads": line["threads"]}
        if "batches" in by:
            base = by["batches"]
            figures["ratio"] = round(rate / (base["tokens"] / base["seconds"]), 3)
            figures["cpu_ratio"] = round(
                base["cpu_seconds"] / base["tokens"] / (line["cpu_seconds"] / line["tokens"]), 3
            )
        if "alone" in by:
            texts = by["alone"]["texts"]
            shares = [share_beginning(line["texts"][place], text) for place, text in texts.items()]
            figures["as_alone"] = round(sum(shares) / len(shares), 4)
        judges.setdefault(line["judge"], {}).setdefault(line["task"], {})[line["way"]] = figures
    return {"judges": judges, "prompts": options.prompts, "tokens": options.tokens, "seed": options.seed}


def share_beginning(text: str, other: str) -> float:
    """How much of two texts is the same from their beginning, 0..1."""
    return 1.0 if text == other else count_common(text, other) / max(len(text), len(other))


def tabled(report: dict[str, Any]) -> Table:
    rows = [
        [
            judge,
            task,
            way,
            str(found["prompts"]),
            f"{found['tokens_per_second']:.1f}",
            f"{found['ratio']:.2f}" if "ratio" in found else "",
            f"{found['cpu_ratio']:.2f}" if "cpu_ratio" in found else "",
            f"{found['as_alone']:.3f}" if "as_alone" in found else "",
        ]
        for judge, tasks in report["judges"].items()
        for task, ways in tasks.items()
        for way, found in ways.items()
    ]
    return Table(
        ("model", "task", "way", "answers", "tokens a second", "times batches", "in CPU time", "as alone"), rows
    )


if __name__ == "__main__":
    sys.exit(run_guarded(lambda: sys.exit(main())))
