"""Training: its speed, and what encoders and rankers gain by it.

    crosslens synthesize /tmp/libreoffice-help --with titles -o /tmp/titles
    python benchmarks/training.py speed /tmp/titles --save docs/measured/training-speed.json
    python benchmarks/training.py attention --save docs/measured/training-attention.json
    python benchmarks/training.py memory --save docs/measured/training-memory.json
    python benchmarks/training.py adapt /tmp/libreoffice-help/test --unseen demo --unseen /tmp/debian/test --out /tmp/adapted
    crosslens synthesize /tmp/libreoffice-help --with "translations?by=id" -o /tmp/translations
    crosslens mine /tmp/translations /tmp/help.index --system dense --first 3 --margin none --translations id -o /tmp/mined.jsonl.gz
    python benchmarks/training.py ranker /tmp/mined.jsonl.gz --base "yesno@offline:gemma?passage_tokens=96" \
        --collection /tmp/libreoffice-help/test --index /tmp/help.index --out /tmp/ranker
    python benchmarks/training.py grpo /tmp/mined.jsonl.gz --base "setwise@offline:qwen-0.5b?dtype=bfloat16&passage_tokens=32" \
        --recipe benchmarks/grpo.toml --out /tmp/grpo

`speed` counts the examples a second that `crosslens train encoder` learns from, against sentence-transformers' trainer: the
same base, in its own length and with its prompts, the same pairs of a query and a document, each once, the same batch,
learning rate and temperature; InfoNCE over the batch. *sentence-transformers* is its trainer with
MultipleNegativesRankingLoss and defaults for all else: float32, all weights, dropout as in the checkpoint. *ours* is the
command as it comes, which drops out nothing; *ours, dropout* leaves out as many states as the peer does, so that the losses
can be compared. Each runs in a process of its own, in turn, `--rounds` times, so that other work on the machine meets all.
Reported are examples a second (the median of the rounds), CPU seconds an example, memory at its peak, and the mean loss of
the first and the last quarter of the steps.

`attention` times a model there and back with PyTorch's fused attention and with whole matrices, for texts of each length.

`memory` writes examples that are made up, opens them as trainings do, and counts seconds, memory, and the time of a batch.

`adapt` runs `crosslens adapt` on a collection, once for each `--way NAME=OPTIONS`, and searches that collection and each
`--unseen` one with the base and with what was made: nDCG@20 by language, with p. Of `demo` the texts are searched. With a
`--teacher` its gain over the base, as a reranker, is set beside that of encoders that were taught its scores
(`--way "distilled=--judge likelihood@offline:gemma"`). What is finished is kept in `--out`, and the same call goes on from
there.

`ranker` trains a reranker on examples, and reranks the first `--depth` of dense search on a collection with its base and with
what was made; `--against NAME=SPEC` adds others. `grpo` teaches one by rewards, and counts how often its base and it put the
likeliest label on the best of a set, in examples that were held out with their pages; a recipe sized for a CPU is
`benchmarks/grpo.toml`, and the same call runs on a GPU.

Each prints its tables on stderr and one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import training_adapt
import training_memory
import training_rankers
import training_speed
from crosslens.commands.console import run_guarded
from measurements import add_save

BASE = "offline:e5-small"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)

    speed = add_verb(verbs, "speed", training_speed.measure_speed)
    speed.add_argument("data", metavar="DATA", help="a file of examples, or a collection with judgements")
    speed.add_argument("--batch", type=int, default=32, help="(%(default)s)")
    speed.add_argument("--steps", type=int, default=8, help="(%(default)s)")
    speed.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    speed.add_argument("--temperature", type=float, default=0.05, help="(%(default)s)")
    speed.add_argument("--device", default="cpu", help="(%(default)s)")
    speed.add_argument("--lora", type=int, default=0, help="the rank of adapters; 0: all weights (%(default)s)")
    speed.add_argument("--way", choices=training_speed.WAYS, help=argparse.SUPPRESS)  # in a process of its own
    speed.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    speed.add_argument("--plot", type=Path, metavar="FILE.png", help="the losses")

    attention = add_verb(verbs, "attention", training_speed.measure_attention)
    attention.add_argument("--lengths", type=int, nargs="+", default=[32, 128, 256, 512], help="tokens of a text")
    attention.add_argument("--tokens", type=int, default=2048, help="in all, at once (%(default)s)")
    attention.add_argument("--rounds", type=int, default=3, help="(%(default)s)")

    memory = verbs.add_parser("memory", help="seconds and memory to open examples")
    memory.add_argument("--examples", type=int, default=1_000_000, help="(%(default)s)")
    memory.add_argument("--documents", type=int, default=500_000, help="among which theirs are drawn (%(default)s)")
    memory.add_argument("--batch", type=int, default=32, help="(%(default)s)")
    memory.add_argument("--open", choices=training_memory.KINDS, help=argparse.SUPPRESS)  # in a process of its own
    memory.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    memory.set_defaults(measure=training_memory.measure_opening)
    add_save(memory)

    adapt = add_verb(verbs, "adapt", training_adapt.measure_adapt)
    adapt.add_argument("collection", metavar="COLLECTION")
    adapt.add_argument("--out", type=Path, required=True, metavar="DIR", help="where checkpoints and rankings are kept")
    adapt.add_argument("--way", action="append", metavar="NAME=OPTIONS", help="of `crosslens adapt`; repeatable")
    adapt.add_argument("--unseen", action="append", default=[], metavar="COLLECTION", help="search it too; repeatable")
    adapt.add_argument("--report", metavar="COLLECTION", help="search this one: the other half of the same documents")
    adapt.add_argument("--queries", type=int, default=0, help="of each collection, drawn by lot; 0: all (%(default)s)")
    adapt.add_argument("--teacher", metavar="SPEC", help="also rerank what the base finds, and compare gains and costs")
    adapt.add_argument("--depth", type=int, default=20, help="candidates that the teacher reranks (%(default)s)")
    adapt.add_argument("--minutes", type=float, default=60.0, help="of each way (%(default)s)")

    ranker = add_verb(verbs, "ranker", training_rankers.measure_ranker)
    ranker.add_argument("data", metavar="DATA", help="examples with negatives")
    ranker.add_argument("--collection", required=True, metavar="DIR", help="a collection directory with judgements")
    ranker.add_argument("--index", required=True, metavar="DIR")
    ranker.add_argument("--depth", type=int, default=20, help="candidates a query (%(default)s)")
    ranker.add_argument("--queries", type=int, default=100, help="drawn by lot; 0: all (%(default)s)")
    ranker.add_argument(
        "--against", action="append", default=[], metavar="NAME=SPEC", help="rerank so, too; repeatable"
    )
    grpo = add_verb(verbs, "grpo", training_rankers.measure_grpo)
    grpo.add_argument("data", metavar="DATA", help="examples with negatives")
    grpo.add_argument("--held-out", type=int, default=100, help="examples that are asked only (%(default)s)")
    grpo.add_argument("--plot", type=Path, metavar="FILE.png", help="the rewards")
    for verb, recipe in ((ranker, "yesno-lora"), (grpo, "rank-r1")):
        verb.add_argument("--recipe", default=recipe, metavar="NAME|FILE.toml", help="(%(default)s)")
        verb.add_argument("--steps", type=int, help="instead of the recipe's")
        verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="where it is kept; a rerun goes on")
    return parser.parse_args()


def add_verb(verbs: Any, name: str, measure: Callable[[argparse.Namespace], dict[str, Any]]) -> Any:
    verb = verbs.add_parser(name, help=measure.__doc__.splitlines()[0] if measure.__doc__ else None)
    verb.add_argument("--base", default=BASE, metavar="SPEC", help="(%(default)s)")
    verb.set_defaults(measure=measure)
    add_save(verb)
    return verb


def main() -> int:
    options = parse_arguments()
    if options.verb == "speed" and options.way:
        print(json.dumps(training_speed.WAYS[options.way](options)))
        return 0
    if options.verb == "memory" and options.open:
        print(json.dumps(training_memory.open_examples(options)))
        return 0
    print(json.dumps(options.measure(options), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(run_guarded(main))
