"""What `fuzz.py` gives damaged inputs to: each reader of crosslens, sound inputs for it, and a second reading that is strict.

A strict reading is written from the format alone, and not with crosslens. An input that crosslens reads, and the strict
reading does not, or not to the same, was read as something that it does not say.
"""

from __future__ import annotations

import gzip
import io
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from crosslens import Item, create_index
from crosslens.encoders.base import EncoderSpec, encode_matrix
from crosslens.encoders.cache.encoder import CachedEncoder
from crosslens.encoders.cache.store import VectorStore
from crosslens.encoders.registry import load_encoder
from crosslens.evaluation.experiment.plan import Plan
from crosslens.indexes.moments import Moments
from crosslens.indexes.storage.storage import read_card
from crosslens.items import Dense
from crosslens.media.images import open_image
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.judges.journal import Journal
from crosslens.multilingual.prompts import load_prompt
from crosslens.multilingual.reranking.plan import parse_reranker
from crosslens.multilingual.reranking.rerank import describe_judging
from crosslens.runs import Manifest, Run, read_qrels
from crosslens.specs import Spec
from crosslens.systems.system import System
from fuzz_strict import (
    gunzip,
    strict_card,
    strict_documents,
    strict_journal,
    strict_manifest,
    strict_neuclir,
    strict_plan,
    strict_prompt,
    strict_qrels,
    strict_run,
    strict_topics,
    strict_tsv,
)
from PIL import Image


@dataclass(frozen=True)
class Reader:
    """`read` reads the `file`, with what lies `beside` it; `strict` reads its bytes, and may be left out.

    `read` gives what was read as plain values, which `strict` gives, too. `weight` is its share of the inputs, `kind` how
    its inputs are damaged beside their bytes.
    """

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], Any]
    strict: Callable[[bytes], Any] | None = None
    kind: str = "text"
    weight: float = 1.0
    beside: Mapping[str, bytes] | None = None

    @property
    def file(self) -> str:
        """The name of the file that it reads."""
        return FILES.get(self.name, "input")


def read_run(path: Path) -> Any:
    run = Run.from_trec(path)
    return {query: [hit.id for hit in hits] for query, hits in run.hits.items()}


def describe_items(items: Any) -> list[Any]:
    """Ids and texts, and that the items can be stored."""
    found = list(items)
    for item in found:
        item.content_hash()
        json.dumps(dict(item.meta), ensure_ascii=False).encode()
    return [(item.id, (item.text or "").strip()) for item in found]


def read_manifest(path: Path) -> Any:
    manifest = Manifest.of_run(path.with_name("x"))
    describe_judging(manifest)
    return manifest.to_json()


def listed(value: Any) -> Any:
    """Tuples as lists, all the way."""
    if isinstance(value, dict):
        return {key: listed(each) for key, each in value.items()}
    return [listed(each) for each in value] if isinstance(value, list | tuple) else value


def read_plan(path: Path) -> Any:
    plan = Plan.read(path)
    for line in plan.systems.values():
        System.parse(line)
    given = tomllib.loads(path.read_bytes().decode("utf-8").replace("\r\n", "\n"))
    return {key: value for key, value in listed(plan.to_json()).items() if key in given}


def read_prompt(path: Path) -> Any:
    prompt = load_prompt(str(path))
    given = tomllib.loads(path.read_bytes().decode("utf-8").replace("\r\n", "\n"))
    # Labels may be written as A..T.
    return {
        key: getattr(prompt, key) for key, value in given.items() if not isinstance(value, dict) and key != "labels"
    }


def read_spec(path: Path) -> Any:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    spec = Spec.parse(text)
    if Spec.parse(str(spec)) != spec:
        raise AssertionError(f"{spec} is not {Spec.parse(str(spec))}")
    parse_reranker(text)
    return None


def read_system(path: Path) -> Any:
    line = path.read_bytes().decode("utf-8", "surrogateescape")
    system = System.parse(line)
    system.depth(10)
    str(system.stage)
    if "'" not in line and '"' not in line and System.parse(" ".join(line.split())).stage != system.stage:
        raise AssertionError("white space changes the stage")
    return system.stage.fingerprint and None


def read_index_card(path: Path) -> Any:
    card = read_card(path.parent)
    str(card.fingerprint)
    numbers = [sum(card.langs.values()), card.documents, *(space.count for space in card.spaces)]
    if not all(type(number) is int for number in numbers) or not all(
        isinstance(key, str) for key in card.keys + card.groups
    ):
        raise TypeError(f"a card of {numbers}")
    return take_keys(json.loads(json.dumps(card.to_json())), json.loads(path.read_bytes()))


def take_keys(found: Any, given: Any) -> Any:
    """What is found under the keys that are given: those that older versions did not write have defaults."""
    if isinstance(found, dict) and isinstance(given, dict):
        return {key: take_keys(each, given[key]) for key, each in found.items() if key in given}
    if isinstance(found, list) and isinstance(given, list) and len(found) == len(given):
        return [take_keys(*pair) for pair in zip(found, given, strict=True)]
    return found


def read_journal(path: Path) -> Any:
    journal = Journal(path)
    found = {key: [value, dict(counts)] for key, (value, counts) in journal.found.items()}
    for key in found:
        journal.get(key)
    journal.close()
    return found


def make_journal(path: Path) -> bytes:
    journal = Journal(path)
    journal.put("89ab", [["d1", 2.5], ["d2", 1]], {"calls": 3})
    journal.put("cdef", {"q": "\u732b"}, {})
    journal.close()
    return path.read_bytes()


def read_picture(path: Path) -> Any:
    image = open_image(path, max_pixels=1 << 16)
    if image.mode != "RGB" or image.tobytes() != open_image(path.read_bytes(), max_pixels=1 << 16).tobytes():
        raise AssertionError("one picture is opened in two ways")
    return None


def read_moments(path: Path) -> Any:
    moments = Moments.load(path)
    other = path.with_name("again")
    moments.save(other)
    again = Moments.load(other)
    if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(sums(moments), sums(again), strict=True)):
        raise AssertionError("moments are not what they were")
    return None


def sums(moments: Moments) -> list[Any]:
    return [
        value
        for groups in (moments.languages, moments.raw)
        for group in groups.values()
        for value in vars(group).values()
    ]


class Even:
    """An encoder that costs nothing."""

    def __init__(self) -> None:
        self.spec = EncoderSpec("fuzz:even", "1", ("text",), 8)

    def encode(self, items: Any, role: str) -> Any:
        for item in items:
            yield Dense([item.id], np.full((1, 8), len(item.text or ""), np.float32) / 100)


CACHED = [Item(str(n), "word " * n) for n in range(1, 20)]


def read_cache(path: Path) -> Any:
    encoder = CachedEncoder(Even(), VectorStore(path, Even().spec))
    try:
        if not np.array_equal(encode_matrix(encoder, CACHED, "document"), encode_matrix(Even(), CACHED, "document")):
            raise AssertionError("vectors are not what was kept")
    finally:
        encoder.close()


def make_cache(path: Path) -> bytes:
    encoder = CachedEncoder(Even(), VectorStore(path, Even().spec))
    encode_matrix(encoder, CACHED, "document")
    encoder.close()
    return path.read_bytes()


def make_moments(path: Path) -> bytes:
    moments = Moments(4)
    vectors = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    groups = ["eng", "fra", None] * 2, ["text"] * 6
    moments.update(vectors, *groups)
    moments.spread(vectors, *groups)
    moments.save(path)
    return path.read_bytes()


def make_pictures() -> tuple[bytes, ...]:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8))
    made = []
    for kind, mode in (("PNG", "RGB"), ("PNG", "P"), ("JPEG", "RGB"), ("GIF", "P"), ("WEBP", "RGB"), ("BMP", "RGB"), ("TIFF", "RGB"),
                       ("PPM", "RGB"), ("QOI", "RGB"), ("AVIF", "RGB")):  # fmt: skip
        out = io.BytesIO()
        image.convert(mode).save(out, kind)
        made.append(out.getvalue())
    out = io.BytesIO()
    image.save(out, "TIFF", compression="tiff_lzw")
    return *made, out.getvalue()


def make_card(path: Path) -> bytes:
    index = create_index(path)
    index.add([Item("a", "red cat", lang="eng"), Item("b", "chat rouge", lang="fra", meta={"year": 2020})], Even())
    index.build()
    return (path / "crosslens.json").read_bytes()


def make_checkpoint(path: Path) -> dict[str, bytes]:
    """A BERT of random weights, small enough to be loaded a hundred times."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "cat"])}
    tokenizer = Tokenizer(models.WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **special).save_pretrained(path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=7,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(path)
    return {each.name: each.read_bytes() for each in path.iterdir()}


def read_checkpoint(path: Path) -> Any:
    encoder = load_encoder(f"hf:{path.parent}?pooling=mean&dtype=float32")
    if not np.isfinite(encode_matrix(encoder, [Item("a", "red cat")], "document")).all():
        raise AssertionError("a vector is not finite")
    return None


DOCS = """{"id": "d1", "title": "Cats", "text": "The cat sleeps.", "lang": "eng", "year": 2020, "score": 1.5}
{"id": "d2", "text": "Le chat dort \\u00e9t\\u00e9.", "lang": "fra", "tags": ["a", "b"], "flag": true}
{"id": 3, "text": "猫は眠る", "lang": "ja", "url": null}
""".encode()
BEIR = b"""{"_id": "d1", "title": "Cats", "text": "The cat sleeps.", "metadata": {"lang": "eng"}}
{"_id": "d2", "title": "", "text": "Le chat dort.", "metadata": {}}
"""
TOPICS = b"""{"id": "q1", "text": "sleeping cat", "lang": "eng"}
{"id": 2, "text": "chat", "excluded_ids": ["d1"]}
"""
NEUCLIR = b"""{"topic_id": "1", "languages_with_qrels": ["zho"], "topics": [{"lang": "eng", "source": "original", "topic_title": "cats", "topic_description": "sleeping cats", "topic_narrative": "any"}, {"lang": "zho", "source": "human translation", "topic_title": "a", "topic_description": "b", "topic_narrative": "c"}]}
"""
RUNS = b"""q1 Q0 d1 1 3.5 x
q1 Q0 d2 2 2.25 x
q1 Q0 d3 3 -1e-3 x
q2 Q0 d1 1 1 x
q2	Q0	d3	2	0.5	x
"""
QRELS = b"""q1 0 d1 2
q1 0 d2 0
q2 eng d1 1
q2 0 d9 -1
"""
TSV = b"""query-id	corpus-id	score
q1	d1	1
q1	d2	0
q2	d2	2
"""
MANIFEST = b"""{"tag": "x", "stages": [{"stage": "dense", "fingerprint": "0123456789ab", "seconds": 0.25, "counts": {"queries": 2}, "models": {"e5": "abc"}}, {"stage": "rerank", "fingerprint": "0123456789ab", "seconds": 3, "counts": {"unreadable": 2, "answers": 9, "calls": 3}, "models": {}}]}"""
PLAN = b"""name = "trial"
collections = ["demo"]
measures = ["nDCG@20", "R@100"]
k = 100
seed = 3
interval = 0.95

[systems]
dense = "dense"
lexical = "lexical % 50"
both = "rrf(dense, lexical, k=20) % 100 >> likelihood@offline:gemma?depth=20"
"""
PROMPT = """asks = "choose"
sort = "heapsort"
labels = "A..T"
each = "Passage {label}: {passage}\\n"
template = "Which is best for {query}?\\n{passages}"
answer = "Best: passage"

[zho]
template = "{query}哪一个{passages}"
each = "段落{label}：{passage}"
answer = "最相关"
""".encode()
JOURNAL = b"""{"key": "0123", "value": [["d1", 2.5], ["d2", 1]], "counts": {"calls": 3}}
{"key": "4567", "value": [], "counts": {}}
"""
SPECS = (
    b"setwise:heapsort@hf:Qwen/Qwen3-0.6B?depth=20&k=10&alpha=0.5", b"likelihood@offline:gemma?depth=20&passage_tokens=128", b"listwise:window@openai:gpt?window=20&step=10",
)  # fmt: skip
SYSTEMS = (
    b"dense % 100 >> likelihood@offline:gemma?depth=20 % 10", b"rrf(dense, lexical, k=20) % 100", b"0.5 * zscore(dense?lang=eng) + 2 * 'lexical?lang=zho,fas'",
    b"merge(dense % 5, (lexical >> default) % 7) + roundrobin(lexical, dense)",
)  # fmt: skip


def list_readers(folder: Path) -> list[Reader]:
    """All readers; what their inputs are made from lies in a folder."""
    folder.mkdir(exist_ok=True, parents=True)
    demo = {"docs.jsonl": DOCS, "topics.jsonl": TOPICS, "qrels.txt": QRELS}

    def documents(path: Path) -> Any:
        return describe_items(load_collection(path.parent).docs())

    def topics(path: Path) -> Any:
        return describe_items(load_collection(path.parent).queries())

    def judged(path: Path) -> Any:
        return load_collection(path.parent.parent).qrels()

    beir = {"corpus.jsonl": BEIR, "queries.jsonl": BEIR, "qrels/test.tsv": TSV}
    checkpoint = make_checkpoint(folder / "checkpoint")
    readers = [
        Reader("documents", (DOCS,), documents, strict_documents, "json", 2),
        Reader(
            "documents, gz",
            (gzip.compress(DOCS, mtime=0),),
            documents,
            lambda content: strict_documents(content, True),
            "gz",
        ),
        Reader("topics", (TOPICS,), topics, strict_topics, "json", 1, demo),
        Reader("topics of NeuCLIR", (NEUCLIR,), topics, strict_neuclir, "json", 1, demo),
        Reader(
            "documents of BEIR",
            (BEIR,),
            documents,
            lambda content: strict_documents(content, key="_id"),
            "json",
            1,
            beir,
        ),
        Reader("judgements of BEIR", (TSV,), judged, strict_tsv, "text", 1, beir),
        Reader("qrels", (QRELS,), lambda path: read_qrels(path)[0], strict_qrels, "text", 2),
        Reader("runs", (RUNS,), read_run, strict_run, "text", 2),
        Reader(
            "runs, gz", (gzip.compress(RUNS, mtime=0),), read_run, lambda content: strict_run(gunzip(content)), "gz"
        ),
        Reader("manifests of runs", (MANIFEST,), read_manifest, strict_manifest, "json", 2),
        Reader("experiments", (PLAN,), read_plan, strict_plan, "text", 2),
        Reader("prompts", (PROMPT,), read_prompt, strict_prompt, "text", 2),
        Reader("SPECs", SPECS, read_spec, None, "text", 2),
        Reader("systems", SYSTEMS, read_system, None, "text", 2),
        Reader("cards of indexes", (make_card(folder / "index"),), read_index_card, strict_card, "json", 2),
        Reader("moments of indexes", (make_moments(folder / "moments"),), read_moments, None, "bytes"),
        Reader("vector caches", (make_cache(folder / "made.sqlite"),), read_cache, None, "bytes"),
        Reader("journals", (JOURNAL, make_journal(folder / "journal")), read_journal, strict_journal, "json"),
        Reader("pictures", make_pictures(), read_picture, None, "bytes", 2),
    ]
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        readers.append(
            Reader(f"checkpoints: {name}", (checkpoint[name],), read_checkpoint, None, "json", 0.1, checkpoint)
        )
    readers.append(
        Reader(
            "checkpoints: safetensors",
            (checkpoint["model.safetensors"],),
            read_checkpoint,
            None,
            "bytes",
            0.1,
            checkpoint,
        )
    )
    return readers


FILES = {
    "documents": "docs.jsonl", "documents, gz": "docs.jsonl.gz", "topics": "topics.jsonl", "topics of NeuCLIR": "topics.jsonl",
    "documents of BEIR": "corpus.jsonl", "judgements of BEIR": "qrels/test.tsv", "runs, gz": "run.gz", "manifests of runs": "x.manifest.json",
    "experiments": "plan.toml", "prompts": "mine.toml", "cards of indexes": "crosslens.json", "vector caches": "vectors.sqlite",
    "checkpoints: config.json": "config.json", "checkpoints: tokenizer.json": "tokenizer.json", "checkpoints: tokenizer_config.json": "tokenizer_config.json",
    "checkpoints: safetensors": "model.safetensors",
}  # fmt: skip
