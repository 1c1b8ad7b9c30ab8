"""`offline:conse` on real photos of installed packages: the real image tower, the real text towers."""

from functools import cache
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from crosslens.checkpoints import openvino
from crosslens.checkpoints.offline import packages as offline
from crosslens.demo.collection import list_photos
from crosslens.encoders.base import Encoder, encode_matrix, unit
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.media.images import open_image
from crosslens.multimodal import conse
from crosslens.multimodal.conse import ConSE
from stand_ins.table import table

pytestmark = pytest.mark.skipif(
    not all(map(offline.is_available, ("efficientnet-lite2", "e5-small", "use-m3"))), reason="needs crosslens[offline]"
)


@cache
def encoder(options: str = "") -> ConSE:
    loaded = load_encoder(f"offline:conse?dtype=float32{options}")
    assert isinstance(loaded, ConSE)
    return loaded


@cache
def photos() -> tuple[list[str], np.ndarray]:
    listed = [Item(photo.id, image=photo.path()) for photo in list_photos()]
    return [item.id for item in listed], encode_matrix(encoder(), listed, "document")


@pytest.mark.parametrize(
    ("photo", "classes"),
    [
        ("photo:cat", {"Egyptian Mau", "tiger cat", "tabby cat"}),
        ("photo:coffee", {"espresso"}),
        ("photo:motorcycle-left", {"moped", "vespa"}),
        ("photo:camera", {"tripod"}),
        ("photo:rocket", {"missile", "rocket"}),
    ],
)
def test_the_image_tower_knows_what_it_sees(photo: str, classes: set[str]) -> None:
    import open_clip

    path = next(each.path() for each in list_photos() if each.id == photo)
    chances = encoder().probabilities([encoder().prepare(open_image(path))])[0]
    assert chances.sum() == pytest.approx(1, abs=1e-4)
    assert classes & {open_clip.IMAGENET_CLASSNAMES[row] for row in chances.argsort()[::-1][:5]}


@pytest.mark.parametrize(
    ("photo", "words"),
    [
        ("photo:cat", {"eng": "cat", "zho": "猫", "spa": "gato", "deu": "Katze", "hin": "बिल्ली", "tha": "แมว"}),
        ("photo:coffee", {"eng": "coffee", "zho": "咖啡", "fas": "قهوه", "rus": "кофе", "ara": "قهوة", "spa": "café"}),
    ],
)
def test_words_of_many_languages_find_the_photo(photo: str, words: dict[str, str]) -> None:
    ids, vectors = photos()
    queries = encode_matrix(encoder(), [Item(lang, word, lang=lang) for lang, word in words.items()], "query")
    firsts = [ids[row] for row in (queries @ vectors.T).argmax(axis=1)]
    assert sum(first == photo for first in firsts) >= len(words) - 1, firsts


def test_one_class_gives_its_names_vector() -> None:
    # The formula at its simplest: with the best class alone, an image is that class's centred text vector.
    one = encoder("&top=1")
    path = next(each.path() for each in list_photos() if each.id == "photo:coffee")
    image, text = Item("i", image=path), Item("t", conse.PROMPT.format("espresso"))
    vectors = encode_matrix(one, [image, text], "document")
    assert vectors[0] @ vectors[1] > 0.9999


def test_weights_are_powers_of_probabilities() -> None:
    two = encoder("&top=2&sharpness=1&blank=0&text=use-m3")
    image = open_image(list_photos()[0].path())
    chances = two.probabilities([two.prepare(image)])[0]
    first, second = chances.argsort()[::-1][:2]
    expected = chances[first] * two.names[first] + chances[second] * two.names[second]
    found = two.images([two.prepare(image)])[0]
    np.testing.assert_allclose(unit(found), unit(expected), atol=1e-5)


def test_what_stands_at_an_edge_is_seen_in_the_whole_picture() -> None:
    # A cat at the left of a wide white strip, as cut-outs have it: the middle square is blank.
    cat = open_image(next(each.path() for each in list_photos() if each.id == "photo:cat")).resize((200, 200))
    strip = PIL.Image.new("RGB", (700, 200), "white")
    strip.paste(cat)
    seen = {view: encoder(f"&view={view}").prepare(strip) for view in ("whole", "middle")}
    assert {view: tuple(each.shape) for view, each in seen.items()} == {"whole": (3, 260, 260), "middle": (3, 260, 260)}
    assert seen["middle"].min() == 255
    whole = seen["whole"].numpy()
    assert whole[:, :90].min() == whole[:, 180:].min() == 255  # margins above and below are as white
    np.testing.assert_allclose(whole[:, 95:165, :70].mean((1, 2)), np.asarray(cat).mean((0, 1)), atol=6)
    assert encoder("&view=whole").spec.fingerprint != encoder("&view=middle").spec.fingerprint
    cats = [row for row, name in enumerate(conse.list_classes()) if "cat" in name.split() or name == "Egyptian Mau"]
    assert encoder().probabilities([seen["whole"]])[0, cats].sum() > 0.2


def test_all_classes_count_unless_some_are_asked_for() -> None:
    chances = np.random.default_rng(0).dirichlet(np.full(1000, 0.1), size=3).astype(np.float32)
    every, few = encoder("&text=use-m3"), encoder("&text=use-m3&top=3")
    weights = (chances / every.white**every.blank) ** every.sharpness
    np.testing.assert_allclose(unit(every.combine(chances)), unit(weights @ every.names), atol=1e-5)
    for row, found in enumerate(few.combine(chances)):
        best = weights[row].argsort()[-3:]
        np.testing.assert_allclose(unit(found), unit(weights[row, best] @ every.names[best]), atol=1e-5)


def test_what_a_white_picture_shows_is_taken_off() -> None:
    white = PIL.Image.new("RGB", (300, 200), "white")
    np.testing.assert_allclose(encoder().probabilities([encoder().prepare(white)])[0], encoder().white, atol=1e-4)
    seen, rest = encoder().white.argmax(), encoder().white.argmin()
    chances = np.full((1, 1000), 1e-9, np.float32)
    chances[0, [seen, rest]] = 0.5  # the model is as sure of either
    plain, calibrated = (encoder(f"&text=use-m3{each}") for each in ("&blank=0", ""))
    names = unit(plain.names[[seen, rest]])
    before, after = (unit(each.combine(chances))[0] @ names.T for each in (plain, calibrated))
    assert after[0] < before[0] - 0.2
    assert after[1] > before[1] + 0.05


def test_role_does_not_matter_and_texts_are_centred() -> None:
    texts = [Item("a", "a red apple"), Item("b", "ein roter Apfel")]
    small = encoder("&text=e5-small")
    vectors = encode_matrix(small, texts, "query")
    np.testing.assert_allclose(vectors, encode_matrix(small, texts, "document"), atol=1e-6)
    bare = encode_matrix(load_encoder("offline:e5-small?dtype=float32"), texts, "query")
    np.testing.assert_allclose(vectors, unit(bare - small.centre), atol=1e-5)


def test_two_text_encoders_share_the_cosine_where_both_know_the_language() -> None:
    items = [
        Item("both", "a red apple", lang="eng"),
        Item("one", "tufaha jekundu", lang="swa"),  # USE does not know Swahili
        Item("photo", image=list_photos()[0].path()),
    ]
    joined, small, use = (
        encode_matrix(encoder(each), items, "query") for each in ("", "&text=e5-small", "&text=use-m3")
    )
    shares = np.sqrt(np.array(encoder().shares) / sum(encoder().shares))
    wanted = np.concatenate([shares[0] * small, shares[1] * use], axis=1)
    wanted[1] = np.concatenate([small[1], np.zeros_like(use[1])])
    np.testing.assert_allclose(joined, wanted, atol=1e-5)


def test_openvino_sees_what_torch_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="pip install 'crosslens[fast]'")
    plain = encoder("&text=use-m3")
    where = tmp_path / "cache"
    where.mkdir()
    for made in offline.locate_cache().iterdir():
        if not made.name.startswith("openvino"):
            (where / made.name).symlink_to(made)
    monkeypatch.setenv("CROSSLENS_CACHE", str(where))
    images = [plain.prepare(open_image(photo.path())) for photo in list_photos()]
    for _ in range(2):  # exported, and read
        other = load_encoder("offline:conse?text=use-m3&backend=openvino", device="cpu")
        assert isinstance(other, ConSE)
        assert other.spec.fingerprint == plain.spec.fingerprint
        np.testing.assert_allclose(other.probabilities(images), plain.probabilities(images), atol=1e-4)
        monkeypatch.setattr(openvino, "_export", lambda *_: pytest.fail("exported again"))
    assert [path.name.split("-")[0] for path in (where / "openvino").iterdir()] == ["efficientnet"]


def test_use_is_a_text_tower_too() -> None:
    other = encoder("&text=use-m3")
    assert other.spec.dim == 512
    assert other.spec.fingerprint != encoder().spec.fingerprint
    listed = [Item(photo.id, image=photo.path()) for photo in list_photos()]
    query = encode_matrix(other, [Item("q", "gatto")], "query")
    assert listed[int((query @ encode_matrix(other, listed, "document").T).argmax())].id == "photo:cat"


def test_class_vectors_are_cached_and_a_torn_file_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = load_encoder("offline:use-m3")
    calls = 0

    def text() -> Encoder:
        nonlocal calls
        calls += 1
        return words

    monkeypatch.setenv("CROSSLENS_CACHE", str(tmp_path / "cache"))
    first = conse.embed_classes(words.spec, text)
    assert (first.shape, first.dtype) == ((1000, 512), np.float32)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
    assert np.array_equal(conse.embed_classes(words.spec, text), first)
    assert calls == 1
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    np.testing.assert_allclose(conse.embed_classes(words.spec, text), first, atol=1e-6)
    assert calls == 2
    monkeypatch.setattr(conse, "PROMPT", "a photo of a {}")
    assert not np.allclose(conse.embed_classes(words.spec, text), first, atol=1e-2)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    monkeypatch.setenv("CROSSLENS_CACHE", str(file))  # a file, so no directory can be made there
    monkeypatch.setattr(conse, "PROMPT", "{}")
    with pytest.raises(InputError, match="set CROSSLENS_CACHE"):
        conse.embed_classes(words.spec, text)


@table(
    "options",
    ["top=0", "top=1001", "sharpness=0", "text=bert", "max_pixels=0", "text_weight=2", "view=left", "blank=1.5"],
)
def test_options_out_of_range(options: str) -> None:
    with pytest.raises(InputError, match=options.partition("=")[0]):
        load_encoder(f"offline:conse?{options}")
