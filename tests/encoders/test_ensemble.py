"""`ensemble:` several encoders as one: its ranking is the weighted sum of cosines, its SPEC loads it again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from crosslens.encoders.base import EncoderSpec, encode_matrix, unit
from crosslens.encoders.cache.encoder import CachedEncoder
from crosslens.encoders.cache.store import VectorStore
from crosslens.encoders.ensemble import Ensemble
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.items import Dense, Item, Role
from crosslens.specs import Spec
from PIL import Image
from stand_ins.table import table


class Toy:
    """Vectors of any length from the words (and pixels) of an item; it remembers what it was given."""

    def __init__(self, name: str, dim: int, modalities: tuple[str, ...] = ("text",), **more: object) -> None:
        self.spec = EncoderSpec(name, name, modalities, dim, max_tokens=dim, **more)  # type: ignore[arg-type]
        self.seen: list[Item] = []

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Dense]:
        for item in items:
            self.seen.append(item)
            seed = [ord(letter) for letter in f"{self.spec.name}{item.text}{item.image is None}"]
            yield Dense([item.id], np.random.default_rng(seed).normal(size=(1, self.spec.dim)).astype(np.float32) * 5)


TEXTS = [Item(f"d{n}", f"document {n}") for n in range(40)]
ASKED = [Item(f"q{n}", f"query {n}") for n in range(7)]


def cosine(encoder: Toy) -> np.ndarray:
    asked, stored = encode_matrix(encoder, ASKED, "query"), encode_matrix(encoder, TEXTS, "document")
    lengths = np.linalg.norm(asked, axis=1)[:, None] * np.linalg.norm(stored, axis=1)
    return asked @ stored.T / lengths


@pytest.mark.parametrize("weights", [None, (1, 1, 1), (3, 1, 0.25), (0.001, 5, 1)])
def test_the_ranking_is_that_of_the_weighted_sum_of_cosines(weights):
    members = [Toy("a", 5), Toy("b", 16), Toy("c", 3)]
    ensemble = Ensemble(members, weights)
    scores = encode_matrix(ensemble, ASKED, "query") @ encode_matrix(ensemble, TEXTS, "document").T
    given = np.array(weights or (1, 1, 1)) / sum(weights or (1, 1, 1))
    expected = sum(weight * cosine(member) for weight, member in zip(given, members, strict=True))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert (np.argsort(-scores) == np.argsort(-expected)).all()
    assert encode_matrix(ensemble, TEXTS, "document").dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(encode_matrix(ensemble, TEXTS, "document"), axis=1), 1, atol=1e-5)


def test_the_spec_names_all_that_decides_a_vector():
    spec = Ensemble([Toy("a", 5), Toy("b", 16, ("text", "image"), max_pixels=900)], [1, 3]).spec
    assert (spec.dim, spec.modalities, spec.max_tokens, spec.max_pixels) == (21, ("text",), 5, 0)
    assert (spec.revision, spec.pooling, spec.normalized, spec.metric) == ("a+b", "concat", True, "cosine")
    assert spec.extra["weights"] == [0.25, 0.75]
    prints = {
        Ensemble([Toy("a", 5), Toy("b", 16)], [1, 3]).spec.fingerprint,
        Ensemble([Toy("a", 5), Toy("b", 16)], [1, 2]).spec.fingerprint,
        Ensemble([Toy("b", 16), Toy("a", 5)], [3, 1]).spec.fingerprint,
        Ensemble([Toy("a", 5), Toy("b", 16, query_prompt="query: ")], [1, 3]).spec.fingerprint,
        spec.fingerprint,
    }
    assert len(prints) == 5
    moved = Toy("a", 5)
    moved.spec = replace(moved.spec, name="elsewhere", dtype="bfloat16")
    assert Ensemble([moved, Toy("b", 16)]).spec == Ensemble([Toy("a", 5), Toy("b", 16)]).spec


def test_a_member_has_no_part_in_languages_that_it_does_not_know(tmp_path):
    all_know, some, others = Toy("a", 5), Toy("b", 16), Toy("c", 3)
    some.known_languages, others.known_languages = frozenset({"deu", "eng"}), frozenset({"eng"})
    ensemble = Ensemble(
        [all_know, CachedEncoder(some, VectorStore(tmp_path / "v.sqlite", some.spec)), others], [4, 2, 1]
    )
    langs = ["eng", "de", "ell", None]
    items = [Item(f"{lang}", "words", lang=lang) for lang in langs]
    vectors = encode_matrix(ensemble, items, "document")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    parts = np.stack([np.abs(part).sum(axis=1) > 0 for part in np.split(vectors, [5, 21], axis=1)], axis=1)
    assert parts.tolist() == [[True, True, True], [True, True, False], [True, False, False], [True, True, True]]
    np.testing.assert_allclose(vectors[2, :5], unit(encode_matrix(all_know, items[:1], "document")[0]), atol=1e-6)
    np.testing.assert_allclose(vectors[0], vectors[3], atol=1e-6)
    assert [item.lang for item in others.seen] == ["eng", None]
    # Where none knows a language, all take part; which languages they know is part of the space.
    alone = encode_matrix(Ensemble([some, others]), [items[2]], "document")
    assert (np.abs(alone) > 0).all()
    before = ensemble.spec.fingerprint
    others.known_languages = frozenset({"eng", "ell"})
    assert Ensemble([all_know, some, others], [4, 2, 1]).spec.fingerprint != before


def test_items_are_read_in_the_modalities_that_all_read():
    sees, reads, both = Toy("sees", 4, ("image",)), Toy("reads", 4), Toy("both", 4, ("text", "image"))
    picture = Image.new("RGB", (3, 3))
    mixed = [Item("b", "words", picture), Item("t", "words")]
    texts = encode_matrix(Ensemble([reads, both]), mixed, "document")
    np.testing.assert_array_equal(texts[0], texts[1])
    assert all(item.image is None for item in [*reads.seen, *both.seen])
    both.seen.clear()
    encode_matrix(Ensemble([sees, both]), mixed[:1], "document")
    assert all(item.text is None for item in [*sees.seen, *both.seen])
    with pytest.raises(InputError, match="'t' holds text, but ensemble:sees.both encodes image"):
        encode_matrix(Ensemble([sees, both]), mixed, "document")
    with pytest.raises(InputError, match="no modality in common: sees reads image; reads reads text"):
        Ensemble([sees, reads])


@table(
    ("make", "message"),
    [
        (lambda: Ensemble([Toy("a", 4)]), "needs two encoders or more"),
        (lambda: Ensemble([Toy("a", 4), Toy("a", 4)]), "names an encoder twice: a, a"),
        (lambda: Ensemble([Toy("a", 4), Toy("b", 4)], [1]), "weights are for 1 encoders, and the ensemble has 2"),
        (lambda: Ensemble([Toy("a", 4), Toy("b", 4)], [1, 0]), "must be above 0"),
        (lambda: Ensemble([Toy("a", 4), Toy("b", 4)], [1, float("nan")]), "must be above 0"),
        (lambda: Ensemble([Toy("a", 4), Toy("b", 4, kind="multi")]), "b is not a dense encoder"),
    ],
)
def test_what_cannot_be_joined(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_the_spec_of_the_command_line(tiny_encoder, tiny_clip, monkeypatch):
    monkeypatch.chdir(tiny_encoder.parent)
    # A relative directory, an option within a member, and weights.
    given = f"ensemble:hf:{tiny_encoder.name}%3Fdtype=float32%26pooling=cls+clip:{tiny_clip}?weights=2,1"
    encoder = load_encoder(given)
    assert isinstance(encoder, Ensemble)
    assert [member.spec.pooling for member in encoder.members][:1] == ["cls"]
    assert encoder.weights == [2 / 3, 1 / 3]
    assert Spec.parse(encoder.spec.name).options == {"weights": "2,1"}
    monkeypatch.chdir("/")
    again = load_encoder(encoder.spec.name)
    assert again.spec == encoder.spec
    assert again.spec.name == encoder.spec.name
    np.testing.assert_array_equal(encode_matrix(again, TEXTS, "query"), encode_matrix(encoder, TEXTS, "query"))
    # Within an ensemble too: its own + and % are encoded once more.
    inner = f"ensemble:hf:{tiny_encoder}%3Fpooling=cls+hf:{tiny_encoder}%3Fpooling=mean"
    nested = load_encoder(f"ensemble:{inner.replace('%', '%25').replace('+', '%2B')}+clip:{tiny_clip}")
    assert nested.spec.dim == 32 + 32 + 16
    assert load_encoder(nested.spec.name).spec == nested.spec


@table(
    ("spec", "message"),
    [
        ("ensemble:", "names no checkpoint"),
        ("ensemble:hf:{0}", "needs two encoders or more: ensemble:SPEC.SPEC"),
        ("ensemble:hf:{0}+", "has an empty member"),
        ("ensemble:hf:{0}+clap:{0}", "unknown encoder family 'clap'"),
        ("ensemble:hf:{0}+offline:bert", "unknown offline encoder 'bert'"),
        ("ensemble:hf:{0}+hf:{0}%3Fcolour=red", "unknown option of hf 'colour'"),
        ("ensemble:hf:{0}+hf:{0}?weights=1,one", "weights='1,one' are not numbers"),
        ("ensemble:hf:{0}+hf:{0}?weights=1", "weights=1 are 1, and the ensemble has 2 encoders"),
        ("ensemble:hf:{0}+hf:{0}?dtype=float32", r"unknown option of ensemble 'dtype' \(known: weights\)"),
    ],
)
def test_bad_specs_are_said_in_one_line(tiny_encoder, spec, message):
    with pytest.raises(InputError, match=message) as error:
        load_encoder(spec.format(tiny_encoder))
    assert "\n" not in str(error.value)


def test_the_command_line_says_it_with_status_2(crosslens, tmp_path):
    status, out, err = crosslens("index", "demo", tmp_path / "x", "--encoder", "ensemble:offline:e5-small?weights=1")
    assert (status, out) == (2, "")
    assert "needs two encoders or more" in err
