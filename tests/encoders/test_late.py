"""Late-interaction encoders: token ids as each checkpoint format has them, projections, pages, pooling, bad checkpoints."""

from __future__ import annotations

import json
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crosslens.encoders.base import Tokenizes
from crosslens.encoders.late import LateEncoder
from crosslens.encoders.pooling import pool_tokens
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.items import Item, Role
from crosslens.multimodal.pages import PageEncoder
from PIL import Image
from safetensors.torch import load_file, save_file
from stand_ins.table import table

TEXTS = ["The cat sleeps all day, and hunts at night!", "Le chat dort.", "猫整天睡觉，晚上捕猎。", "a"]


def late(path: Path, **options: object) -> LateEncoder:
    encoder = load_encoder(f"late:{path}?dtype=float32" + "".join(f"&{key}={value}" for key, value in options.items()))
    assert isinstance(encoder, LateEncoder)
    return encoder


def encoded(encoder: Any, texts: list[Any], role: Role) -> list[np.ndarray]:
    items = [Item(str(row), *(each if isinstance(each, tuple) else (each,))) for row, each in enumerate(texts)]
    return [vectors for batch in encoder.encode(items, role) for vectors in batch.vectors]


def tokens(encoder: LateEncoder, text: str, role: Role) -> list[str]:
    ids, _ = encoder.fill(encoder.token_ids([text], role)[0], role)
    return [str(token) for token in encoder.tokenizer.convert_ids_to_tokens(ids)]


def copied(source: Path, where: Path) -> Path:
    shutil.copytree(source, where)
    return where


def changed(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def pylate(tmp_path: Path, tiny_colbert: Path) -> Path:
    """PyLate's format: modules.json, a Dense with a residual and one without, `[Q] ` and `[D] ` in the tokenizer."""
    from transformers import AutoTokenizer

    where = tmp_path / "pylate"
    where.mkdir()
    tokenizer = AutoTokenizer.from_pretrained(tiny_colbert)
    tokenizer.add_tokens(["[Q] ", "[D] "])
    tokenizer.save_pretrained(where)
    weights = load_file(tiny_colbert / "model.safetensors")
    weights = {name.removeprefix("bert."): tensor for name, tensor in weights.items() if "linear.w" not in name}
    table = weights["embeddings.word_embeddings.weight"]
    random = torch.Generator().manual_seed(1)
    weights["embeddings.word_embeddings.weight"] = torch.cat([table, torch.randn(2, 32, generator=random)])
    save_file(weights, where / "model.safetensors", {"format": "pt"})
    config = json.loads((tiny_colbert / "config.json").read_text())
    config |= {"architectures": ["BertModel"], "vocab_size": len(tokenizer)}
    (where / "config.json").write_text(json.dumps(config))
    kinds = ["sentence_transformers.models.Transformer", *["pylate.models.Dense.Dense"] * 2]
    modules = [
        {"idx": n, "name": str(n), "path": ["", "1_Dense", "2_Dense"][n], "type": kind} for n, kind in enumerate(kinds)
    ]
    (where / "modules.json").write_text(json.dumps(modules))
    (where / "sentence_bert_config.json").write_text('{"max_seq_length": 99, "do_lower_case": false}')
    sizes = ((32, 24), (24, 16))
    for number, (wide, narrow) in enumerate(sizes, 1):
        (folder := where / f"{number}_Dense").mkdir()
        layer = {"linear.weight": torch.randn(narrow, wide, generator=random)}
        if number == 1:
            layer["residual.weight"] = torch.randn(narrow, wide, generator=random)
        save_file(layer, folder / "model.safetensors")
        identity = "torch.nn.modules.linear.Identity"
        settings = {"in_features": wide, "out_features": narrow, "bias": False, "activation_function": identity}
        (folder / "config.json").write_text(json.dumps(settings | {"use_residual": number == 1}))
    (where / "config_sentence_transformers.json").write_text(
        json.dumps(
            {
                "model_type": "ColBERT",
                "prompts": {},
                "query_prefix": "[Q] ",
                "document_prefix": "[D] ",
                "query_length": 16,
                "document_length": 40,
                "do_query_expansion": False,
                "skiplist_words": list(string.punctuation),
            }
        )
    )
    return where


# Token ids


def test_colbert_marks_fills_and_skips(tiny_colbert: Path) -> None:
    encoder = late(tiny_colbert)
    query = tokens(encoder, TEXTS[0], "query")
    assert query[:4] == ["[CLS]", "[unused0]", "Ġ", "The"]  # ColBERT tokenises ". The cat": the space is kept
    assert len(query) == 32
    end = query.index("[SEP]")
    assert query[end + 1 :] == ["[MASK]"] * (31 - end)
    document = tokens(encoder, TEXTS[0], "document")
    assert document[:2] == ["[CLS]", "[unused1]"]
    assert document[-1] == "[SEP]"
    assert "[MASK]" not in document
    (vectors,) = encoded(encoder, [TEXTS[0]], "document")
    assert {",", "!"} <= set(document)
    assert len(vectors) == sum(token not in string.punctuation for token in document)
    (vectors,) = encoded(encoder, [TEXTS[0]], "query")
    assert vectors.shape == (32, 16)  # all of them, punctuation and masks as well
    spec = encoder.spec
    assert (spec.kind, spec.dim, spec.max_tokens, spec.metric) == ("multi", 16, 100, "cosine")
    assert "[unused0]" in spec.special_tokens
    assert "[MASK]" in spec.special_tokens
    assert spec.extra["query_tokens"] == 32


def test_texts_are_cut_to_their_lengths(tiny_colbert: Path) -> None:
    encoder = late(tiny_colbert, max_tokens=20, query_tokens=8)
    for role, length in (("document", 20), ("query", 8)):
        found = tokens(encoder, "cat " * 200, role)
        assert len(found) == length
        assert found[-1] == "[SEP]"
    assert encoder.spec.fingerprint != late(tiny_colbert).spec.fingerprint
    assert isinstance(encoder, Tokenizes)
    assert (encoder.room("query"), encoder.room()) == (5, 17)
    assert encoder.token_spans(["a b"])[0][[0, -1]].tolist()[0] == [0, 1]


def test_masks_are_seen_only_where_the_checkpoint_says_so(tmp_path: Path, tiny_colbert: Path) -> None:
    """Unseen masks leave the words of the query as they would be without them; seen ones do not."""
    there = copied(tiny_colbert, tmp_path / "seen")
    changed(there / "artifact.metadata", attend_to_mask_tokens=True)
    unseen, seen, short = late(tiny_colbert), late(there), late(tiny_colbert, query_tokens=8)
    words = len(unseen.token_ids(["a"], "query")[0])
    (first,), (second,), (third,) = (encoded(each, ["a"], "query") for each in (unseen, seen, short))
    np.testing.assert_allclose(first[:words], third[:words], atol=1e-5)
    assert np.abs(first[:words] - second[:words]).max() > 0.01
    assert unseen.spec.fingerprint != seen.spec.fingerprint


def test_punctuation_is_kept_where_the_checkpoint_keeps_it(tmp_path: Path, tiny_colbert: Path) -> None:
    there = copied(tiny_colbert, tmp_path / "kept")
    changed(there / "artifact.metadata", mask_punctuation=False)
    encoder = late(there)
    assert len(encoded(encoder, [TEXTS[0]], "document")[0]) == len(tokens(encoder, TEXTS[0], "document"))


def test_a_text_of_punctuation_alone_keeps_its_special_tokens(tiny_colbert: Path) -> None:
    assert encoded(late(tiny_colbert), ["?!..."], "document")[0].shape == (4, 16)  # and the space's


def test_pylate_puts_its_markers_after_the_first_token(pylate: Path) -> None:
    encoder = late(pylate)
    query = tokens(encoder, "the cat", "query")
    assert query[:2] == ["[CLS]", "[Q] "]
    assert query[-1] == "[SEP]"  # do_query_expansion is off
    assert tokens(encoder, "the cat", "document")[:2] == ["[CLS]", "[D] "]
    assert len(tokens(encoder, "cat " * 99, "query")) == 16
    assert len(tokens(encoder, "cat " * 99, "document")) == 40
    changed(pylate / "config_sentence_transformers.json", do_query_expansion=True)
    assert tokens(late(pylate), "cat", "query")[-1] == "[MASK]"
    assert len(tokens(late(pylate), "cat", "query")) == 16


def test_plaid_x_markers_are_the_rows_behind_the_vocabulary(tmp_path: Path) -> None:
    """Its XLM-R tokenizers are saved without the two markers that the model was trained with."""
    from transformers import AutoTokenizer, XLMRobertaConfig, XLMRobertaModel

    tokenizer = xlmr_tokenizer()
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 60}
    for more in (2, 0):
        where = tmp_path / f"plaidx {more}"
        tokenizer.save_pretrained(where)
        config = XLMRobertaConfig(
            vocab_size=len(tokenizer) + more, initializer_range=0.3, architectures=["HF_ColBERT"], **size, **special
        )
        weights = {
            f"roberta.{name}": tensor
            for name, tensor in XLMRobertaModel(config, add_pooling_layer=False).state_dict().items()
        }
        weights["linear.weight"] = torch.eye(16, 32)
        save_file(weights, where / "model.safetensors", {"format": "pt"})
        (where / "config.json").write_text(json.dumps(config.to_dict() | {"architectures": ["HF_ColBERT"]}))
        encoder = late(where)
        free = len(AutoTokenizer.from_pretrained(where))
        query, document = (encoder.token_ids(["cat"], role)[0] for role in ("query", "document"))
        if more:
            assert (query[1], document[1]) == (free, free + 1)
        else:  # no such rows: ColBERT's own code marks with the unknown token
            assert query[1] == document[1] == tokenizer.unk_token_id
        assert query[0] == document[0] == tokenizer.bos_token_id
        assert len(encoded(encoder, ["cat"], "query")[0]) == 32
        assert encoder.spec.max_tokens == 58  # positions from pad_token_id + 1 on


def xlmr_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "cat", "dog", ".", "!", "<mask>"]
    made = Tokenizer(models.WordLevel({word: row for row, word in enumerate(vocabulary)}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    more = {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names, **more)


# Vectors


def test_projection_is_applied_and_vectors_have_length_1(tiny_colbert: Path) -> None:
    encoder = late(tiny_colbert)
    (vectors,) = encoded(encoder, ["the cat"], "query")
    ids, seen = encoder.fill(encoder.token_ids(["the cat"], "query")[0], "query")
    mask = torch.arange(len(ids))[None] < seen
    with torch.inference_mode():
        states = encoder.model(input_ids=torch.tensor([ids]), attention_mask=mask.long()).last_hidden_state[0]
    wanted = states @ load_file(tiny_colbert / "model.safetensors")["linear.weight"].T
    np.testing.assert_allclose(vectors, torch.nn.functional.normalize(wanted, dim=1), atol=1e-5)
    (short,) = encoded(late(tiny_colbert, dim=8), ["the cat"], "query")
    np.testing.assert_allclose(short, torch.nn.functional.normalize(wanted[:, :8], dim=1), atol=1e-5)


@pytest.mark.parametrize("which", ["colbert", "pylate", "pylate with expansion", "native"])
def test_vectors_equal_those_of_sentence_transformers(
    which: str, tiny_colbert: Path, pylate: Path, tmp_path: Path
) -> None:
    """The other implementation of these formats; it does not know PyLate's residual, which is left out here."""
    oracle = pytest.importorskip("sentence_transformers").MultiVectorEncoder
    where = tiny_colbert
    if which != "colbert":
        where = pylate
        changed(pylate / "1_Dense" / "config.json", use_residual=False)
        layer = load_file(pylate / "1_Dense" / "model.safetensors")
        save_file({"linear.weight": layer["linear.weight"]}, pylate / "1_Dense" / "model.safetensors")
        changed(pylate / "config_sentence_transformers.json", do_query_expansion=which != "pylate")
    theirs = oracle(str(where), device="cpu")
    if which == "native":
        where = tmp_path / "native"
        theirs.save_pretrained(str(where))
        theirs = oracle(str(where), device="cpu")
    ours = late(where)
    for role, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
        wanted = [np.asarray(each) for each in encode(TEXTS, convert_to_numpy=True)]
        for mine, other in zip(encoded(ours, TEXTS, role), wanted, strict=True):
            assert mine.shape == other.shape
            assert (mine * other).sum(axis=1).min() > 0.9999


def test_pylates_residual_is_added(pylate: Path) -> None:
    first, second = (load_file(pylate / f"{n}_Dense" / "model.safetensors") for n in (1, 2))
    encoder = late(pylate)
    states = torch.randn(3, 32, generator=torch.Generator().manual_seed(3))
    wanted = states @ (first["linear.weight"] + first["residual.weight"]).T @ second["linear.weight"].T
    torch.testing.assert_close(encoder.dense(states), wanted, rtol=1e-4, atol=1e-3)


# Token pooling


def test_pooling_keeps_a_share_of_the_vectors_and_the_first_one() -> None:
    random = np.random.default_rng(0)
    centres = np.linalg.qr(random.standard_normal((16, 16)))[0][:5]
    groups = np.repeat(np.arange(5), 6)
    random.shuffle(groups)
    vectors = centres[groups] + 0.01 * random.standard_normal((30, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    first = -centres[:1].astype(np.float32)
    found = pool_tokens(np.concatenate([first, vectors]), 6)
    assert found.shape == (6, 16)
    np.testing.assert_array_equal(found[:1], first)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    # Each cluster's mean lies at its centre, whatever the order of the tokens.
    assert (found[1:] @ centres.T).max(axis=0).min() > 0.999
    assert pool_tokens(vectors, 6, 0).shape == (5, 16)
    np.testing.assert_array_equal(pool_tokens(vectors[:2], 2), vectors[:2])
    assert len(pool_tokens(np.repeat(vectors[:1], 9, axis=0), 2, 0)) <= 4


def test_pooling_is_for_documents_alone_and_part_of_the_space(tiny_colbert: Path) -> None:
    plain, halved = late(tiny_colbert), late(tiny_colbert, pool=2)
    (whole,), (half,) = (encoded(each, [TEXTS[0]], "document") for each in (plain, halved))
    assert len(half) == 1 + (len(whole) - 1) // 2
    np.testing.assert_allclose(*(encoded(each, ["a"], "query")[0] for each in (plain, halved)), atol=1e-6)
    assert "pooling" in plain.spec.difference(halved.spec)


# Pages


def page(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("which", ["tiny_colpali", "tiny_colqwen"])
def test_pages_and_queries_are_worded_by_the_processor(which: str, request: pytest.FixtureRequest) -> None:
    """Alone, an item gets what transformers' own processor and model make of it."""
    import transformers

    where = request.getfixturevalue(which)
    encoder = load_encoder(f"late:{where}?dtype=float32")
    assert isinstance(encoder, PageEncoder)
    processor = transformers.AutoProcessor.from_pretrained(where)
    model = transformers.AutoModelForPreTraining.from_pretrained(where, dtype=torch.float32).eval()
    picture = page(40, 48)
    texts = processor.process_queries(text=["the cat"])
    pages = processor.process_images(images=[picture])
    for given, item, role in ((texts, ("the cat",), "query"), (pages, (None, picture), "document")):
        given.pop("labels", None)
        with torch.inference_mode():
            wanted = model(**given).embeddings[0].numpy()
        (found,) = encoded(encoder, [item], role)
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert processor.query_augmentation_token * 10 in encoder.spec.special_tokens
    assert (encoder.spec.query_prompt, encoder.spec.dim) == (processor.query_prefix, 8)


def test_the_vectors_of_text_and_page_are_put_together(tiny_colpali: Path) -> None:
    encoder = load_encoder(f"late:{tiny_colpali}?dtype=float32")
    picture = page(30, 30)
    text, image, both = encoded(encoder, ["the cat", (None, picture), ("the cat", picture)], "document")
    np.testing.assert_allclose(both, np.concatenate([text, image]), atol=1e-4)
    (query,) = encoded(encoder, ["the cat"], "query")
    assert len(query) == len(text) + 10  # a document has no augmentation tokens


def test_max_pixels_bounds_the_visual_tokens(tiny_colqwen: Path) -> None:
    """A page of 8 by 8 pixels is a token: 64 pixels a token, never more than the limit has room for."""
    default = load_encoder(f"late:{tiny_colqwen}?dtype=float32")
    assert default.spec.max_pixels == 1 << 16  # the processor's own
    frame = len(encoded(default, [(None, page(8, 8))], "document")[0]) - 1
    for limit in (1024, 4096, 16384):
        encoder = load_encoder(f"late:{tiny_colqwen}?dtype=float32&max_pixels={limit}")
        assert encoder.spec.max_pixels == limit
        for size in ((400, 300), (2000, 30), (33, 31)):
            visual = len(encoded(encoder, [(None, page(*size))], "document")[0]) - frame
            assert 0 < visual <= max(limit // 64, size[0] // 8 if size[0] > 1000 else 0)
        assert len(encoded(encoder, [(None, page(400, 300))], "document")[0]) - frame > limit // 64 * 0.7
    with pytest.raises(InputError, match="max_pixels must be at least 64"):
        load_encoder(f"late:{tiny_colqwen}?max_pixels=63")


def test_texts_of_pages_are_cut_and_cannot_pose_as_pictures(tiny_colpali: Path) -> None:
    encoder = load_encoder(f"late:{tiny_colpali}?dtype=float32&max_tokens=30")
    assert isinstance(encoder, PageEncoder)
    long, posing = encoded(encoder, ["cat " * 300, f"{encoder.processor.image_token} cat"], "query")
    assert 26 <= len(long) <= 30
    assert len(posing) < 30
    ids = encoder.word("cat " * 300, "query")["input_ids"][0]
    augmented = encoder.processor.tokenizer.pad_token_id
    assert (ids == augmented).sum() == 10  # the cut leaves the augmentation tokens whole


# Bad input


@table(
    ("options", "message"),
    [
        ("pool=0", "pool must be at least 1, not 0"),
        ("dim=17", r"dim must be in 1\.\.16, not 17"),
        ("max_tokens=3", r"max_tokens must be in 4\.\.128, not 3"),
        ("query_tokens=129", r"query_tokens must be in 4\.\.128, not 129"),
        ("max_pixels=9", "max_pixels is for models that read pages"),
        ("pooling=mean", "unknown option of late 'pooling'"),
    ],
)
def test_bad_options(tiny_colbert: Path, options: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_encoder(f"late:{tiny_colbert}?{options}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("query_tokens=8", "query_tokens is for ColBERT's kind"),
        ("dim=9", r"dim must be in 1\.\.8, not 9"),
        ("max_pixels=0", "max_pixels must be at least 1"),
        ("max_tokens=2", r"max_tokens must be in \d+\.\.512, not 2"),
    ],
)
def test_bad_options_of_pages(tiny_colpali: Path, options: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_encoder(f"late:{tiny_colpali}?{options}")


def test_checkpoints_of_other_kinds(tmp_path: Path, tiny_encoder: Path, tiny_colbert: Path, pylate: Path) -> None:
    with pytest.raises(InputError, match="is not a late-interaction checkpoint: .*; train it first: .* --base late:"):
        late(tiny_encoder)
    dense = copied(tiny_encoder, tmp_path / "dense")
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (dense / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match="load it with hf:, which makes one vector a text, or train it"):
        late(dense)

    def spoilt(name: str, source: Path, spoil: Callable[[Path], object], message: str) -> None:
        there = copied(source, tmp_path / name)
        spoil(there)
        with pytest.raises(InputError, match=message):
            late(there)

    spoilt(
        "pickled",
        tiny_colbert,
        lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"),
        "pickled weights only .pytorch_model.bin.*convert them once: python -c",
    )
    spoilt("empty", tiny_colbert, lambda path: (path / "model.safetensors").unlink(), "has no weights")
    spoilt(
        "headless",
        tiny_colbert,
        lambda path: save_file(
            {k: v for k, v in load_file(path / "model.safetensors").items() if k != "linear.weight"},
            path / "model.safetensors",
            {"format": "pt"},
        ),
        "lack linear.weight, the projection of ColBERT",
    )
    spoilt("cut", tiny_colbert, lambda path: (path / "artifact.metadata").write_text("{"), "malformed JSON")
    spoilt(
        "l2",
        tiny_colbert,
        lambda path: changed(path / "artifact.metadata", similarity="l2"),
        "similarity l2 is not supported",
    )
    spoilt("dumb", tiny_colbert, lambda path: [each.unlink() for each in path.glob("tokenizer*")], "has no tokenizer")
    spoilt(
        "no dense",
        pylate,
        lambda path: (path / "2_Dense" / "model.safetensors").unlink(),
        "2_Dense has no model.safetensors",
    )
    spoilt(
        "unmarked",
        pylate,
        lambda path: changed(path / "config_sentence_transformers.json", query_prefix="[X] "),
        r"does not know the marker '\[X\] '",
    )


def test_pages_without_a_processor_or_weights(tmp_path: Path, tiny_colpali: Path) -> None:
    there = copied(tiny_colpali, tmp_path / "bare")
    (there / "processor_config.json").unlink()
    with pytest.raises(InputError, match=r"bare.*(processor|lacks images)"):
        load_encoder(f"late:{there}")
    there = copied(tiny_colpali, tmp_path / "headless")
    weights = load_file(there / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "embedding_proj" not in k}, there / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(InputError, match="weights are missing from the checkpoint: embedding_proj_layer"):
        load_encoder(f"late:{there}")
