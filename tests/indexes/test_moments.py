"""Means, the language correction, and backgrounds of scores (`indexes.moments`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from crosslens.encoders.base import unit
from crosslens.errors import InputError
from crosslens.indexes.moments import TEXT, Block, Moments

DIM = 32
IMAGE, BOTH = "image", "text+image"
SIZES = {"eng": 900, "zho": 700, "swa": 3, None: 50}


def collection() -> tuple[np.ndarray, list[str | None], list[str]]:
    """Texts in a cone for each language, pictures in another, a few of both; in a mixed order."""
    random = np.random.default_rng(5)
    parts, langs, kinds = [], [], []
    for lang, size in SIZES.items():
        parts.append(random.normal(size=(size, DIM)) + 3 * random.normal(size=DIM))
        langs += [lang] * size
        kinds += [TEXT] * size
    for kind, size in ((IMAGE, 400), (BOTH, 30)):
        parts.append(random.normal(size=(size, DIM)) + 3 * random.normal(size=DIM))
        langs += ["eng" if kind == BOTH else None] * size
        kinds += [kind] * size
    order = random.permutation(len(langs))
    vectors = unit(np.concatenate(parts))[order]
    return vectors, [langs[row] for row in order], [kinds[row] for row in order]


VECTORS, LANGS, KINDS = collection()


def blocks(size: int = 256) -> Iterator[Block]:
    for start in range(0, len(VECTORS), size):
        part = slice(start, start + size)
        yield VECTORS[part], LANGS[part], KINDS[part]


@pytest.fixture(scope="module")
def moments() -> Moments:
    return Moments.of(DIM, blocks)


def sizes(moments: Moments) -> dict[str, int]:
    return {lang: total.count for lang, total in moments.languages.items()}


def rows(lang: str | None, kind: str) -> np.ndarray:
    return np.array([each == (lang, kind) for each in zip(LANGS, KINDS, strict=True)])


def test_correction_removes_the_mean_of_each_large_group(moments: Moments) -> None:
    corrected = moments.correct(VECTORS, LANGS, KINDS)
    assert corrected.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(corrected, axis=1), 1, atol=1e-5)
    for lang, kind in (("eng", TEXT), ("zho", TEXT), (None, IMAGE)):
        before = np.linalg.norm(VECTORS[rows(lang, kind)].mean(axis=0))
        after = np.linalg.norm(corrected[rows(lang, kind)].mean(axis=0))
        assert before > 0.8
        assert after < 0.1


def test_correction_makes_languages_equal(moments: Moments) -> None:
    # Before, a Chinese query is nearer to Chinese documents than to any other.
    corrected = moments.correct(VECTORS, LANGS, KINDS)
    zho, eng = rows("zho", TEXT), rows("eng", TEXT)
    query = VECTORS[zho][:20]
    assert (query @ VECTORS[zho].T).mean() - (query @ VECTORS[eng].T).mean() > 0.5
    query = corrected[zho][:20]
    assert abs((query @ corrected[zho].T).mean() - (query @ corrected[eng].T).mean()) < 0.02


def test_queries_are_corrected_by_the_mean_of_queries(tmp_path: Path) -> None:
    moments = Moments.of(DIM, blocks)
    random = np.random.default_rng(6)
    english = unit(random.normal(size=(40, DIM)) + 3 * random.normal(size=DIM))
    # None yet: as documents.
    np.testing.assert_array_equal(moments.query_mean("eng", TEXT), moments.document_mean("eng", TEXT))
    moments.add_queries("eng", english[:30], "thirty")
    moments.add_queries(None, english[30:], "ten")
    moments.save(tmp_path / "moments")
    for each in (moments, Moments.load(tmp_path / "moments")):
        every = english.sum(axis=0) / 41
        eng = (english[:30].sum(axis=0) + 3 * every) / 33
        np.testing.assert_allclose(each.query_mean("eng", TEXT), eng, atol=1e-5)
        # A language without queries, and none, have the mean of all.
        for lang in ("zho", None):
            np.testing.assert_allclose(each.query_mean(lang, TEXT), every, atol=1e-5)
        np.testing.assert_array_equal(each.query_mean(None, IMAGE), moments.document_mean(None, IMAGE))
        corrected = each.correct(english[:2], ["eng"] * 2, [TEXT] * 2, "query")
        np.testing.assert_allclose(corrected, unit(english[:2] - eng), atol=1e-5)
        np.testing.assert_allclose(
            each.correct(english[:2], ["eng"] * 2, [TEXT] * 2),
            unit(english[:2] - moments.document_mean("eng", TEXT)),
            atol=1e-5,
        )


def test_names_lead_the_mean_of_queries_towards_a_language(tmp_path: Path) -> None:
    moments = Moments.of(DIM, blocks)
    random = np.random.default_rng(7)
    names = {lang: unit(random.normal(size=(8, DIM)) + 2 * random.normal(size=DIM)) for lang in ("eng", "zho", "rus")}
    moments.add_queries("eng", VECTORS[:30], "thirty")
    moments.add_queries("zho", VECTORS[30:40], "ten")
    plain = moments.query_mean("rus", TEXT)
    moments.add_names("rus", names["rus"])
    np.testing.assert_array_equal(moments.query_mean("rus", TEXT), plain)  # from nowhere there is no way
    for lang in ("eng", "zho"):
        moments.add_names(lang, names[lang])
    moments.add_names("lat", np.zeros((0, DIM), np.float32))
    moments.save(tmp_path / "moments")
    for each in (moments, Moments.load(tmp_path / "moments")):
        means = {lang: vectors.mean(axis=0) for lang, vectors in names.items()}
        step = means["rus"] - (3 * means["eng"] + means["zho"]) / 4
        np.testing.assert_allclose(each.query_mean("rus", TEXT), plain + 0.75 * step, atol=1e-5)
        for lang in ("lat", "fra", None):
            np.testing.assert_allclose(each.query_mean(lang, TEXT), plain, atol=1e-6)


def test_queries_are_taken_over_if_the_texts_are_the_same(tmp_path: Path) -> None:
    before, after = Moments.of(DIM, blocks), Moments.of(DIM, blocks)
    before.add_queries("eng", VECTORS[:20], "these")
    before.save(tmp_path / "moments")
    assert not after.reuse_queries(Moments.load(tmp_path / "moments"), "eng", "others")
    assert not after.reuse_queries(Moments.load(tmp_path / "moments"), "zho", "these")
    assert after.reuse_queries(Moments.load(tmp_path / "moments"), "eng", "these")
    np.testing.assert_array_equal(after.query_mean("eng", TEXT), before.query_mean("eng", TEXT))


def test_the_input_is_left_alone_and_blocks_do_not_matter(moments: Moments) -> None:
    before = VECTORS.copy()
    other = Moments.of(DIM, lambda: blocks(7))
    corrected = other.correct(VECTORS, LANGS, KINDS)
    np.testing.assert_allclose(corrected, moments.correct(VECTORS, LANGS, KINDS), atol=1e-6)
    for flag in (True, False):
        for one, two in zip(
            moments.background(corrected[:5], TEXT, flag), other.background(corrected[:5], TEXT, flag), strict=True
        ):
            np.testing.assert_allclose(one, two, atol=1e-6)
    np.testing.assert_array_equal(VECTORS, before)


def test_a_language_with_few_documents_is_drawn_to_the_mean_of_all_texts(moments: Moments) -> None:
    everything = moments.document_mean(None, TEXT)
    own = VECTORS[rows("swa", TEXT)].mean(axis=0)
    expected = (3 * own + moments.kappa * everything) / (3 + moments.kappa)
    np.testing.assert_allclose(moments.document_mean("swa", TEXT), expected, atol=1e-6)
    # A large language keeps its own mean.
    np.testing.assert_allclose(moments.document_mean("eng", TEXT), VECTORS[rows("eng", TEXT)].mean(axis=0), atol=0.01)


@pytest.mark.parametrize("lang", [None, "tlh"])
def test_unknown_languages_use_the_mean_of_all_texts(moments: Moments, lang: str | None) -> None:
    texts = VECTORS[[kind == TEXT for kind in KINDS]]
    np.testing.assert_allclose(moments.document_mean(lang, TEXT), texts.mean(axis=0), atol=1e-3)


def test_pictures_have_one_mean_whatever_their_language(moments: Moments) -> None:
    np.testing.assert_array_equal(moments.document_mean("eng", IMAGE), moments.document_mean(None, IMAGE))


def test_documents_read_as_both_lie_between_when_there_are_none() -> None:
    kept = [row for row, kind in enumerate(KINDS) if kind != BOTH]
    moments = Moments(DIM)
    moments.update(VECTORS[kept], [LANGS[row] for row in kept], [KINDS[row] for row in kept])
    middle = (moments.document_mean("zho", TEXT) + moments.document_mean(None, IMAGE)) / 2
    np.testing.assert_allclose(moments.document_mean("zho", BOTH), middle, atol=1e-6)


def test_the_only_document_is_not_its_own_mean() -> None:
    moments = Moments(DIM)
    moments.update(VECTORS[:1], ["eng"], [IMAGE])
    np.testing.assert_allclose(moments.correct(VECTORS[:1], ["eng"], [IMAGE]), VECTORS[:1], atol=1e-5)


@pytest.mark.parametrize(("lang", "kind"), [("zho", TEXT), ("eng", BOTH), (None, IMAGE)])
@pytest.mark.parametrize("corrected", [True, False])
def test_background_is_the_mean_and_deviation_of_scores(
    moments: Moments, lang: str | None, kind: str, corrected: bool
) -> None:
    documents = moments.correct(VECTORS, LANGS, KINDS) if corrected else VECTORS
    queries = unit(np.random.default_rng(1).normal(size=(9, DIM)))
    scores = queries @ documents[[each == kind for each in KINDS]].T
    mean, deviation = moments.background(queries, kind, corrected)
    np.testing.assert_allclose(mean, scores.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(deviation, scores.std(axis=1), rtol=1e-4)


def test_background_survives_a_narrow_cone() -> None:
    # Cosines around 0.998: second moments that are not centred would lose the variance in float32.
    random = np.random.default_rng(2)
    vectors = unit(20 + random.normal(size=(5000, DIM)))
    moments = Moments.of(DIM, lambda: [(vectors, ["eng"] * 5000, [TEXT] * 5000)])
    queries = vectors[:4]
    _, deviation = moments.background(queries, TEXT, False)
    exact = (queries.astype(float) @ vectors.T.astype(float)).std(axis=1)
    np.testing.assert_allclose(deviation, exact, rtol=0.01)


def test_background_of_few_documents_is_never_without_spread() -> None:
    moments = Moments(DIM)
    moments.update(VECTORS[:1], ["eng"], [IMAGE])
    moments.spread(VECTORS[:1], ["eng"], [IMAGE])
    queries = VECTORS[1:4]
    mean, deviation = moments.background(queries, IMAGE, False)
    np.testing.assert_allclose(mean, queries @ VECTORS[0], atol=1e-5)
    np.testing.assert_allclose(deviation, np.sqrt(19 / 20 / DIM), rtol=1e-4)
    mean, deviation = moments.background(queries, TEXT, True)
    assert (mean == 0).all()
    np.testing.assert_allclose(deviation, np.sqrt(1 / DIM), rtol=1e-4)


def test_covariance_looks_at_a_sample_of_large_modalities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crosslens.indexes.moments.SAMPLE", 400)
    moments = Moments.of(DIM, blocks)
    queries = unit(np.random.default_rng(1).normal(size=(9, DIM)))
    for kind in (TEXT, IMAGE, BOTH):
        documents = VECTORS[[each == kind for each in KINDS]]
        # Every fifth text, and all of the others, of which there are few.
        documents = documents[::5] if kind == TEXT else documents
        mean, deviation = moments.background(queries, kind, False)
        np.testing.assert_allclose(mean, (queries @ documents.T).mean(axis=1), atol=1e-5)
        np.testing.assert_allclose(deviation, (queries @ documents.T).std(axis=1), rtol=1e-4)


def test_two_languages_are_corrected_and_many_documents_of_one_that_is_not_english(moments: Moments) -> None:
    assert moments.needs_correction
    assert sizes(moments) == {"eng": 900, "zho": 700, "swa": 3}
    few = Moments(DIM)
    few.update(VECTORS[:10], ["eng"] * 8 + ["zho"] * 2, [TEXT] * 10)
    assert not few.needs_correction
    few.update(VECTORS[:9], ["zho"] * 9, [IMAGE] * 9)
    assert not few.needs_correction
    few.update(VECTORS[:1], ["zho"], [TEXT])
    assert few.needs_correction
    assert not Moments(DIM).needs_correction
    for lang, count, needed in (("zho", 100, True), ("zho", 99, False), ("eng", 400, False)):
        alone = Moments(DIM)
        alone.update(VECTORS[:count], [lang] * count, [TEXT] * count)
        assert alone.needs_correction is needed


def test_save_and_load(moments: Moments, tmp_path: Path) -> None:
    path = tmp_path / "moments.safetensors"
    moments.save(path)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    loaded = Moments.load(path)
    assert sizes(loaded) == sizes(moments)
    assert loaded.kappa == moments.kappa
    corrected = moments.correct(VECTORS, LANGS, KINDS)
    np.testing.assert_array_equal(loaded.correct(VECTORS, LANGS, KINDS), corrected)
    for kind in (TEXT, IMAGE, BOTH):
        for one, two in zip(
            loaded.background(corrected[:5], kind, True), moments.background(corrected[:5], kind, True), strict=True
        ):
            np.testing.assert_array_equal(one, two)


def test_a_damaged_file_is_refused(moments: Moments, tmp_path: Path) -> None:
    path = tmp_path / "moments.safetensors"
    with pytest.raises(InputError, match=r"cannot read .*moments.safetensors.*build the index again"):
        Moments.load(path)
    moments.save(path)
    data = path.read_bytes()
    for damaged in (b"", data[: len(data) // 2], b"\xff" * 100):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="build the index again"):
            Moments.load(path)


def test_an_unwritable_place_is_refused(moments: Moments, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"):
        moments.save(tmp_path / "nowhere" / "moments.safetensors")


def test_blocks_that_do_not_fit_are_refused(moments: Moments) -> None:
    with pytest.raises(ValueError, match="dim 32"):
        moments.correct(np.zeros((2, 8)), ["eng", "eng"], [TEXT, TEXT])
    with pytest.raises(ValueError, match="1 langs"):
        moments.correct(np.zeros((2, DIM)), ["eng"], [TEXT, TEXT])
    with pytest.raises(ValueError, match="sound"):
        moments.correct(np.zeros((1, DIM)), ["eng"], ["sound"])
