"""Queries and documents of text and image together: two towers by weight, as scores and as features, with instructions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import PIL.Image
import pytest
from crosslens.encoders.base import EncoderSpec, encode_matrix, unit
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.indexes.registry import create_index
from crosslens.items import Item
from crosslens.multimodal.towers import TwoTower, fuse_vectors

DIM = 8


class Toy(TwoTower):
    """Texts and images hashed to directions; what it was asked for is kept."""

    spec = EncoderSpec("toy", "0", ("text", "image"), DIM, max_pixels=1 << 20)

    def __init__(self) -> None:
        self.seen: list[str] = []

    def texts(self, texts: Sequence[str], role: str, langs: Sequence[str | None]) -> np.ndarray:
        self.seen += texts
        return np.stack([directions(sum(map(ord, text))) for text in texts])

    def images(self, images: Sequence[PIL.Image.Image]) -> np.ndarray:
        return np.stack([directions(image.getpixel((0, 0))[0] + 10_000) for image in images])


def directions(seed: int) -> np.ndarray:
    # Of any length: towers need not normalise.
    return np.random.default_rng(seed).normal(size=DIM) * (1 + seed % 7)


def grey(level: int) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (4, 4), (level, level, level))


DOCUMENTS = [Item(f"t{n}", f"text {n}") for n in range(5)] + [Item(f"i{n}", image=grey(n)) for n in range(5)]
MIXED = [*DOCUMENTS, *(Item(f"b{n}", f"other {n}", grey(20 + n)) for n in range(5))]


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_the_product_with_a_fused_vector_is_the_weighted_mean_of_the_products_with_its_parts(weight):
    text, image, documents = (np.random.default_rng(n).normal(size=(6, DIM)) for n in range(3))
    scores = fuse_vectors(text, image, weight, "score") @ documents.T
    np.testing.assert_allclose(
        scores, weight * unit(text) @ documents.T + (1 - weight) * unit(image) @ documents.T, atol=1e-5
    )
    features = fuse_vectors(text, image, weight)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)
    # Of queries the length changes nothing: both rank alike.
    assert (np.argsort(-scores) == np.argsort(-features @ documents.T)).all()
    assert features.dtype == fuse_vectors(text, image, weight, "score").dtype == np.float32


def test_weights_at_the_ends_are_the_parts_alone():
    encoder = Toy()
    both = [Item("b", "a cat", grey(3))]
    for weight, part in ((1.0, Item("t", "a cat")), (0.0, Item("i", image=grey(3)))):
        encoder.text_weight = weight
        np.testing.assert_allclose(
            encode_matrix(encoder, both, "query"), encode_matrix(encoder, [part], "query"), atol=1e-6
        )


def test_documents_with_both_rank_by_the_mean_of_scores_or_by_their_direction():
    query = Item("q", "a question")
    encoder = Toy()
    encoder.text_weight = 0.3
    parts = [
        [Item("t", item.text), Item("i", image=item.image)] if item.text and item.image else [item] for item in MIXED
    ]
    asked = encode_matrix(encoder, [query], "query")[0]
    cosines = [encode_matrix(encoder, part, "document") @ asked for part in parts]
    means = np.array([c[0] if len(c) == 1 else 0.3 * c[0] + 0.7 * c[1] for c in cosines])
    encoder.fusion = "score"
    scored = encode_matrix(encoder, MIXED, "document") @ asked
    np.testing.assert_allclose(scored, means, atol=1e-6)
    encoder.fusion = "feature"
    featured = encode_matrix(encoder, MIXED, "document") @ asked
    np.testing.assert_allclose(featured[:10], scored[:10], atol=1e-6)
    assert (np.abs(featured[10:]) > np.abs(scored[10:]) + 1e-3).all()


def test_one_vector_an_item_in_order_and_an_instruction_for_queries_alone():
    encoder = Toy()
    encoder.instruction = "Find a picture of"
    found = encode_matrix(encoder, MIXED, "query")
    assert found.shape == (len(MIXED), DIM)
    assert encoder.seen == [f"Find a picture of {item.text}" if item.text else "Find a picture of" for item in MIXED]
    encoder.seen.clear()
    plain = encode_matrix(encoder, MIXED, "document")
    assert encoder.seen == [item.text for item in MIXED if item.text]
    # A query of an image alone is fused with the instruction.
    alone = encode_matrix(encoder, [Item("x", "Find a picture of", grey(0))], "document")
    np.testing.assert_allclose(found[5], alone[0], atol=1e-6)
    assert np.abs(found[5] - plain[5]).max() > 1e-3
    with pytest.raises(InputError, match="'empty' holds neither text nor image"):
        encode_matrix(encoder, [Item("empty", " ")], "query")


def test_clip_has_the_options_and_its_spec_says_so(tiny_clip):
    plain = load_encoder(f"clip:{tiny_clip}?dtype=float32")
    scored = load_encoder(f"clip:{tiny_clip}?dtype=float32&fuse=score&text_weight=0.25&instruct=find")
    assert (plain.spec.metric, plain.spec.normalized) == ("cosine", True)
    assert (scored.spec.metric, scored.spec.normalized) == ("dot", False)
    assert scored.spec.extra["fuse"] == "score"
    assert "fuse" not in plain.spec.extra
    item = Item("b", "a cat", grey(90))
    text, image = encode_matrix(plain, [Item("t", "find a cat"), Item("i", image=grey(90))], "query")
    np.testing.assert_allclose(encode_matrix(scored, [item], "query")[0], 0.25 * text + 0.75 * image, atol=1e-5)
    assert len({load_encoder(f"clip:{tiny_clip}?{o}").spec.fingerprint for o in ("", "fuse=score", "instruct=x")}) == 3
    with pytest.raises(InputError, match="unknown value of fuse .*known: feature, score"):
        load_encoder(f"clip:{tiny_clip}?fuse=sum")


@pytest.mark.parametrize("fused", ["feature", "score"])
def test_an_index_scores_documents_by_what_was_fused(tiny_clip, tmp_path, fused):
    encoder = load_encoder(f"clip:{tiny_clip}?dtype=float32&fuse={fused}")
    index = create_index(tmp_path / "index", lexical=False)
    # With texts or images alone beside them, the index makes z-scores of each group.
    both = MIXED[10:]
    index.add(both, encoder)
    queries = [Item("q", "text 1", grey(22)), Item("p", "other"), Item("r", image=grey(24))]
    asked, stored = encode_matrix(encoder, queries, "query"), encode_matrix(encoder, both, "document")
    run = index.search(queries, 5, exact=True, correct=False)
    for query, scores in zip(queries, asked @ stored.T, strict=True):
        hits = {hit.id: hit.score for hit in run[query.id]}
        assert set(hits) == {item.id for item in both}
        # Vectors are stored in half precision.
        np.testing.assert_allclose([hits[item.id] for item in both], scores, atol=3e-3)
