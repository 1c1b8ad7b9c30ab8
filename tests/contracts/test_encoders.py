"""What every registered encoder must keep: a new family adds one line to `SPECS`; a test fails until it does."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crosslens.checkpoints.offline import packages as offline
from crosslens.encoders.base import Encoder, EncoderSpec, NotFinite
from crosslens.encoders.registry import FAMILIES, OFFLINE, load_encoder
from crosslens.errors import InputError
from crosslens.items import Dense, Item, Multi, Role, Sparse
from PIL import Image

# Registered name -> a SPEC, where {fixture} is a tiny checkpoint that a fixture of tests/conftest.py writes.
READS_TEXT = {
    "hf": "hf:{tiny_encoder}?dtype=float32",
    "hf in int8": "hf:{tiny_encoder}?dtype=int8",
    "llm": "llm:{tiny_llm}?dtype=float32&instruct=Find+the+passage",
    "llm padded on the left": "llm:{tiny_llm}?dtype=float32&padding=left&dim=16",
    "llm both ways": "llm:{tiny_bidirectional_llm}?dtype=float32",
    "llm both ways, on the left": "llm:{tiny_bidirectional_llm}?dtype=float32&padding=left",
    "llm in int8": "llm:{tiny_llm}?dtype=int8&attention=bidirectional",
    "promptreps": "promptreps:{tiny_llm}?dtype=float32&prompt=own",
    "promptreps sparse": "promptreps:{tiny_judge}?dtype=float32&rep=sparse",
    "st": "st:{tiny_encoder}?dtype=float32",
    "st of a decoder": "st:{tiny_bidirectional_llm}?dtype=float32&batch_size=8",
    "ensemble": "ensemble:hf:{tiny_encoder}%3Fdtype=float32+clip:{tiny_clip}%3Fdtype=float32?weights=2,1",
    "late": "late:{tiny_colbert}?dtype=float32",
    "late pooled": "late:{tiny_colbert}?dtype=float32&pool=2&dim=8&query_tokens=20",
    "splade": "splade:{tiny_splade}?dtype=float32",
    "splade of few terms": "splade:{tiny_splade}?dtype=float32&terms=40&pooling=sum&activation=log1p_relu",
    "offline:e5-small": "offline:e5-small?dtype=float32",
    "offline:use-m3": "offline:use-m3",
    "offline:e5-use": "offline:e5-use?dtype=float32",
}
SEES = {
    "clip": "clip:{tiny_clip}?dtype=float32",
    "clip with an XLM-R": "clip:{tiny_multilingual_clip}?dtype=float32",
    "vlm": "vlm:{tiny_vlm}?dtype=float32&format=gme&max_pixels=4096",
    "vlm as DSE": "vlm:{tiny_vlm}?dtype=float32&format=dse&max_pixels=4096&dim=16",
    "ensemble of two that see": "ensemble:clip:{tiny_clip}%3Fdtype=float32+"
    "vlm:{tiny_vlm}%3Fdtype=float32%26format=gme%26max_pixels=4096",
    "late over pages": "late:{tiny_colpali}?dtype=float32",
    "late over pages of any size": "late:{tiny_colqwen}?dtype=float32&max_pixels=4096",
    "offline:conse": "offline:conse?dtype=float32",
    "offline:conse with USE": "offline:conse?text=use-m3&top=7",
}
SPECS = READS_TEXT | SEES
# Those that look words up in an engine of their own.
ENGINES = ("offline:use-m3", "offline:conse with USE")
# The packages whose models an encoder needs, by their names in checkpoints/offline/packages.py.
NEEDS = {
    "e5-small": ["e5-small"],
    "use-m3": ["use-m3"],
    "e5-use": ["e5-small", "use-m3"],
    "conse": ["efficientnet-lite2", "e5-small", "use-m3"],
}

ENGLISH = "The cat sat on the mat and looked at the rain."
TEXTS = {
    "english": ENGLISH,
    "chinese": "猫坐在垫子上看雨。",
    "right to left": "جلست القطة على الحصيرة ونظرت إلى المطر. گربه روی حصیر نشست.",
    "mixed directions": "The word \u200fשלום\u200f means peace \u202bسلام\u202c.",
    "emoji": "👩‍👩‍👧‍👦 🐈‍⬛ 🇫🇷 👍🏽",
    "combining": "Z\u0351\u036ba\u0310\u0352l\u0352\u0343g\u0363o\u0312 cafe\u0301 nai\u0308ve",
    "one letter": "a",
    "control characters": "a\u0000b\u0007c\ufffd",
    "very long": "the quick brown fox jumps over the lazy dog. " * 400,
    "very long without a space": "x" * 10_000,
}


@pytest.fixture(scope="module", params=SPECS)
def encoder(request: pytest.FixtureRequest, fill: Callable[[str], str]) -> Encoder:
    """Each encoder, or, where a test says so, those of `READS_TEXT` or of `SEES`."""
    return load_encoder(fill(SPECS[request.param]))


def those(specs: dict[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("encoder", specs, indirect=True, scope="module")


@pytest.fixture(scope="module")
def fill(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """A SPEC with the paths of its checkpoints; skips where a package is not installed."""

    def filled(spec: str) -> str:
        family, _, rest = spec.partition(":")
        if family == "offline":
            missing = [name for name in NEEDS[rest.partition("?")[0]] if not offline.is_available(name)]
            if missing:
                pytest.skip(f"needs crosslens[offline]: {', '.join(missing)}")
            return spec
        for fixture in re.findall(r"\{(\w+)\}", spec):
            spec = spec.replace(f"{{{fixture}}}", str(request.getfixturevalue(fixture)))
        return spec

    return filled


@pytest.fixture
def fresh(request: pytest.FixtureRequest, encoder: Encoder) -> Encoder:
    """The same encoder loaded once more, to be spoilt."""
    return load_encoder(encoder.spec.name)


def noise(seed: int, width: int = 70, height: int = 50) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def sees(encoder: Encoder) -> bool:
    return "image" in encoder.spec.modalities


def mixed(encoder: Encoder, count: int) -> list[Item]:
    """Items of all lengths, and of all modalities that the encoder reads, in no order."""
    words = ENGLISH.split()
    listed = []
    for row in range(count):
        text = f"{row} " + " ".join(words[: 1 + row * 7 % len(words)]) + " again" * (row * 13 % 50)
        kind = row % 5
        image = noise(row, 20 + row, 90 - row % 60) if sees(encoder) and kind in (1, 2) else None
        listed.append(Item(f"d{row * 7 % count:03}", None if image and kind == 1 else text, image))
    return listed


WIDEST = 700  # token vectors of an item


def vectors(encoder: Encoder, items: list[Item], role: Role = "document") -> tuple[list[str], np.ndarray]:
    """Ids and vectors of an encoder, batches joined; an item's token vectors lie end to end, zeros behind them."""
    batches = list(encoder.encode(iter(items), role))
    if encoder.spec.kind == "multi":
        found = np.zeros((len(items), WIDEST, encoder.spec.dim), np.float32)
        ids, each = [], [matrix for batch in batches for matrix in batch.vectors]
        for batch in batches:
            assert isinstance(batch, Multi)
            ids += batch.ids
        for row, matrix in zip(found, each, strict=True):
            assert matrix.dtype == np.float32
            assert matrix.ndim == 2
            assert len(matrix) > 0
            row[: len(matrix)] = matrix
        return ids, found.reshape(len(items), -1)
    kind = Sparse if encoder.spec.kind == "sparse" else Dense
    assert all(isinstance(batch, kind) and batch.vectors.dtype == np.float32 for batch in batches)
    assert all(batch.vectors.shape == (len(batch.ids), encoder.spec.dim) for batch in batches)
    ids = [name for batch in batches for name in batch.ids]
    if kind is Sparse:
        assert all(batch.vectors.data.min(initial=1) > 0 for batch in batches)  # no zeros are stored
        return ids, np.concatenate([batch.vectors.toarray() for batch in batches])
    return ids, np.concatenate([batch.vectors for batch in batches])


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_every_registered_encoder_is_tested() -> None:
    tested = {name.partition(" ")[0] for name in SPECS}
    assert tested == {*FAMILIES, *(f"offline:{name}" for name in OFFLINE)}
    assert set(NEEDS) == set(OFFLINE)


def test_order_and_ids_are_kept_and_alone_equals_in_a_batch(encoder: Encoder) -> None:
    roles: tuple[Role, ...] = ("query", "document")
    for role in roles:
        items = mixed(encoder, 12)
        ids, together = vectors(encoder, items, role)
        assert ids == [item.id for item in items]
        for row in (0, 1, 2, 11):
            alone = vectors(encoder, [items[row]], role)[1]
            assert cosines(alone, together[row : row + 1])[0] > 0.9999
        backwards = vectors(encoder, items[::-1], role)[1][::-1]
        assert cosines(backwards, together).min() > 0.9999
        # The vectors differ, so that the order of rows is a finding.
        assert len(np.unique(together.round(5), axis=0)) == len(items)
    assert list(encoder.encode([], "document")) == []


@pytest.mark.parametrize(
    ("encoder", "least", "most"),
    [("hf", 3, 128), ("llm", 3, 128), ("st", 3, 128), ("vlm", 8, 512)],
    indirect=["encoder"],
    scope="module",
)
def test_dim_keeps_the_first_components_and_renormalises(encoder: Encoder, least: int, most: int) -> None:
    """Matryoshka; beside it, the bounds of `dim` and `max_tokens`."""
    name, dim = encoder.spec.name, encoder.spec.dim
    part = load_encoder(f"{name}&dim=8")
    items = mixed(encoder, 10) + [Item(title, text) for title, text in TEXTS.items()]
    for role in ("query", "document"):
        whole, short = (vectors(each, items, role)[1] for each in (encoder, part))
        expected = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
        np.testing.assert_allclose(short, expected, atol=1e-6)
    for wrong in (0, dim + 1):
        with pytest.raises(InputError, match=rf"dim must be in 1\.\.{dim}, not {wrong}"):
            load_encoder(f"{name}&dim={wrong}")
    with pytest.raises(InputError, match=rf"max_tokens must be in {least}\.\.{most}, not {most + 1}"):
        load_encoder(f"{name}&max_tokens={most + 1}")


def test_any_text_has_a_vector_which_is_finite_and_of_unit_length_where_the_spec_says_so(encoder: Encoder) -> None:
    ids, texts = vectors(encoder, [Item(name, text) for name, text in TEXTS.items()], "query")
    assert ids == list(TEXTS)
    assert np.linalg.norm(texts, axis=1).min() > 0
    for found in (texts, vectors(encoder, mixed(encoder, 10))[1]):
        assert np.isfinite(found).all()
        if encoder.spec.normalized:
            lengths = np.linalg.norm(found.reshape(-1, encoder.spec.dim), axis=1)
            lengths = lengths[lengths > 0] if encoder.spec.kind == "multi" else lengths
            np.testing.assert_allclose(lengths, 1, atol=1e-3)


def test_empty_text_is_an_error(encoder: Encoder) -> None:
    for text in ("", " \n\t\u3000", None):
        with pytest.raises(InputError, match="'empty' holds neither text nor image"):
            list(encoder.encode([Item("full", ENGLISH), Item("empty", text)], "query"))


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    """Pictures of every size."""
    folder, items = tmp_path_factory.mktemp("sizes"), [Item("a", image=noise(1))]
    for size in ((1, 1), (1, 3000), (3000, 2), (3000, 2400)):
        path = folder / f"{size}.png"
        Image.new("RGB", size, "teal").save(path)
        items.append(Item(path.name, image=path))
    return items


@those(SEES)
def test_images_of_any_size(encoder: Encoder, sizes: list[Item]) -> None:
    ids, found = vectors(encoder, sizes)
    assert ids == [item.id for item in sizes]
    assert np.isfinite(found).all()


@those(SEES)
def test_a_bomb_is_refused_by_name(encoder: Encoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("RGB", (40, 40)).save(tmp_path / "bomb.png")
    with pytest.raises(InputError, match=r"'boom' \(.*bomb\.png\).*decompression bomb"):
        list(encoder.encode([Item("boom", image=tmp_path / "bomb.png")], "document"))


@those(READS_TEXT)
def test_a_modality_that_it_does_not_read_is_an_error(encoder: Encoder) -> None:
    with pytest.raises(InputError, match=f"'picture' holds image, but {encoder.spec.name[:8]}.* encodes text"):
        list(encoder.encode([Item("words", ENGLISH), Item("picture", image=noise(1))], "document"))
    # An item with both is read by what the encoder reads.
    both = vectors(encoder, [Item("both", ENGLISH, noise(1)), Item("words", ENGLISH)])[1]
    assert cosines(both[:1], both[1:])[0] > 0.9999


@those(SEES)
def test_text_with_image_differs_from_either(encoder: Encoder) -> None:
    items = [Item("t", ENGLISH), Item("i", image=noise(1)), Item("b", ENGLISH, noise(1))]
    text, image, both = vectors(encoder, items)[1]
    assert cosines(both, np.stack([text, image])).max() < 0.999
    if hasattr(encoder, "text_weight"):  # two towers; where a model reads both at once, it says what becomes of them
        assert both @ text > image @ text
        assert both @ image > image @ text


def test_nan_is_detected_and_named(fresh: Encoder) -> None:
    spoil(fresh)
    with pytest.raises(NotFinite, match=r"not finite for .*\bbad\b"):
        list(fresh.encode([Item("bad", ENGLISH)], "document"))


def spoil(encoder: Encoder) -> None:
    """Put a NaN where a half-precision overflow would."""
    text = getattr(encoder, "text", None)
    if hasattr(encoder, "members"):
        spoil(encoder.members[0])
    elif text is not None:  # ConSE: its texts come from another encoder
        encoder.centre[0] = np.nan  # type: ignore[attr-defined]
    elif hasattr(encoder, "model"):
        import torch

        encoder.model = copy.deepcopy(encoder.model)  # encoders of one checkpoint share it
        with torch.no_grad():
            named = encoder.model.named_parameters()
            [weight for name, weight in named if poisonable(name)][-1].view(-1)[0] = float("nan")
    else:
        genuine = encoder.network.embed  # type: ignore[attr-defined]
        encoder.network.embed = lambda batch: genuine(batch) * np.nan  # type: ignore[attr-defined]


def poisonable(name: str) -> bool:
    """Whether it is the weight of a norm that every text passes."""
    last = ("LayerNorm.weight", "ln_final.weight", "language_model.norm.weight")
    return "visual" not in name and (name.endswith(("model.norm.weight", *last)) or name == "norm.weight")


class Scarce:
    """While it is entered, a batch of more than one text is more than the memory holds, or every batch is."""

    def __init__(self, most: int = 1) -> None:
        self.most, self.widest = most, 0

    def __enter__(self) -> Scarce:
        import torch
        from crosslens.checkpoints.int8 import RowEmbedding

        def look(module: Any, given: tuple[Any, ...]) -> None:
            # Words are looked up by [texts, tokens], positions by [1, tokens].
            if isinstance(module, torch.nn.Embedding | RowEmbedding) and given and given[0].ndim == 2:
                self.widest = max(self.widest, len(given[0]))
                if len(given[0]) > self.most:
                    raise torch.OutOfMemoryError("CUDA error: out of memory")

        self.hook = torch.nn.modules.module.register_module_forward_pre_hook(look)
        return self

    def __exit__(self, *_: object) -> None:
        self.hook.remove()


@those({name: spec for name, spec in SPECS.items() if name not in ENGINES})
def test_out_of_memory_halves_the_batch_and_names_what_never_fits(encoder: Encoder) -> None:
    items = [Item(f"d{row}", f"{ENGLISH} {row}") for row in range(6)]
    expected = vectors(encoder, items)[1]
    with Scarce() as memory:
        ids, found = vectors(encoder, items)
    assert memory.widest > 1  # it was tried
    assert ids == [item.id for item in items]
    assert cosines(found, expected).min() > 0.9999
    with Scarce(0), pytest.raises(InputError, match=r"item .* alone does not fit into memory"):
        list(encoder.encode(items, "document"))


def test_spec_is_complete_survives_json_and_loads_the_same_encoder(encoder: Encoder) -> None:
    spec = EncoderSpec.from_json(json.loads(json.dumps(encoder.spec.to_json())))
    assert spec.difference(encoder.spec) == ""
    assert spec.fingerprint == encoder.spec.fingerprint
    assert spec.revision
    assert spec.dim > 0
    assert spec.pooling
    assert spec.kind in ("dense", "multi", "sparse")  # `vectors` checks that it is so
    assert (spec.max_pixels > 0) == sees(encoder)
    again = load_encoder(spec.name)
    assert again.spec.fingerprint == spec.fingerprint
    again.spec.require(spec)
    items = mixed(encoder, 5)
    assert cosines(vectors(again, items)[1], vectors(encoder, items)[1]).min() > 0.9999
    with pytest.raises(InputError, match=r"unknown option of .* 'colour'.*known: "):
        load_encoder(spec.name + ("&" if "?" in spec.name else "?") + "colour=red")


class FirstBatch(Exception):
    """A model is given its first batch."""


def test_input_is_read_a_bounded_window_ahead(encoder: Encoder) -> None:
    import torch

    read = 0

    def endless() -> Iterator[Item]:
        nonlocal read
        while True:
            read += 1
            yield Item(str(read), "a")

    def stop(*_: object) -> None:
        raise FirstBatch

    # What a window's vectors are is not the matter here: a model is stopped at the first of them.
    hook = torch.nn.modules.module.register_module_forward_pre_hook(stop)
    try:
        first = next(encoder.encode(endless(), "query"))
        assert list(first.ids) == [str(number) for number in range(1, len(first.ids) + 1)]
        assert "use-m3" in encoder.spec.name  # which has an engine of its own
    except FirstBatch:
        pass
    finally:
        hook.remove()
    assert 0 < read <= 4096
