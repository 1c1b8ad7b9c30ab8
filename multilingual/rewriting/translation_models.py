"""Models that were trained to translate, through transformers: OPUS-MT (Marian), NLLB, M2M100, mBART-50, MADLAD."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import Any

import torch
import transformers

from ...checkpoints.devices import Precision, resolve_dtype
from ...checkpoints.options import UNBOUNDED, Loading
from ...checkpoints.source import Source
from ...encoders.pooling import collate
from ...errors import InputError, check_at_least
from ...files import read_json
from ...items import group_positions
from ..judges.base import Sampling
from ..judges.journal import Journal
from ..judges.local import TextGenerator, run_batches
from ..languages import name_language, parse_language
from .pieces import Piece, split_sentences, split_to_fit, translate_pieces

LONGEST = 256  # tokens of a piece; these models were trained on sentences, and drop what comes after a few
BUDGETS = (4096, 32768)  # padded tokens a batch, question and answer, on a CPU and on an accelerator
Reading = tuple[tuple[int, ...], int]  # what the encoder reads, and how many tokens its answer may have
APPETITES = (16_384, 262_144)  # characters

# How a checkpoint of each type writes a language in its vocabulary.
_UNDERSCORED = re.compile(r"(?P<base>[a-z]{2,3})_(?:(?P<script>[A-Z][a-z]{3})|[A-Z]{2})")  # zho_Hans, zh_CN
_BARE = re.compile(r"(?P<base>[a-z]{2,3})(?:[_-](?P<script>[A-Z][a-z]{3}))?(?:[_-][A-Z]{2})?")
_MARKS = {
    "marian": re.compile(rf">>{_BARE.pattern}<<"),
    "m2m_100": _UNDERSCORED,
    "nllb-moe": _UNDERSCORED,
    "mbart": _UNDERSCORED,
    "t5": re.compile(rf"<2{_BARE.pattern}>"),
}


def is_trained(checkpoint: str, revision: str | None = None, trust_remote_code: bool = False) -> bool:
    """Whether a checkpoint's type and vocabulary say that it was trained to translate."""
    try:
        path = Source(checkpoint, revision).find("config.json") if checkpoint else None
        kind = read_json(path).get("model_type") if path else None
    except (ValueError, AttributeError, OSError):
        return False
    if kind not in _MARKS:
        return False
    return kind == "marian" or bool(_codes(_tokenizer(Source(checkpoint, revision, trust_remote_code)), kind))


def open_translator(
    checkpoint: str, *, loading: Loading, dtype: Precision = "auto", beams: int = 1
) -> TrainedTranslator:
    """Load from the hub or a directory, safetensors only.

    `dtype` is float32 on a CPU by default, `beams` the width of the search (1: greedy). `InputError` in one
    line where anything is missing or does not fit.
    """
    check_at_least(1, beams=beams)
    where, source = loading.where, loading.find_source(checkpoint)
    precision = torch.float32 if dtype == "auto" and where.type == "cpu" else resolve_dtype(dtype, where)
    config = source.load_config()
    tokenizer = _tokenizer(source)
    model = source.load_model(transformers.AutoModelForSeq2SeqLM, config=config, dtype=precision)
    known = source.identify_weights(model.config)
    return TrainedTranslator(model, tokenizer, f"hf:{checkpoint}", known, device=where, beams=beams)


class TrainedTranslator:
    """An encoder-decoder that translates sentence by sentence, with beams or greedily; the same text, the same words.

    OPUS-MT (Tiedemann and Thottingal 2020; Helsinki-NLP/opus-mt-zh-en) has one source and one target language, or
    several that it is given by `>>rus<<`; NLLB (NLLB Team 2022; facebook/nllb-200-distilled-600M), M2M100 (Fan et al.
    2021; facebook/m2m100_418M) and mBART-50 (Tang et al. 2020; facebook/mbart-large-50-many-to-many-mmt) read the
    source language's token and begin with the target's; MADLAD (Kudugunta et al. 2023; google/madlad400-3b-mt) reads
    `<2ru>` before the text. Which languages there are is read off the vocabulary.

    Texts are cut at the ends of sentences and lines. A sentence of more than 256 tokens is cut further (counted as
    `split_sentences`), and a translation that finds no end, at a limit that depends on the sentence's length alone
    (`cut_answers`). Texts in no known language are not translated where the model must read it
    (`unknown_language`).
    """

    journal: Journal | None = None

    def __init__(
        self, model: Any, tokenizer: Any, name: str, revision: str, *, device: torch.device, beams: int = 1
    ) -> None:
        self.name = name
        self.revision = revision
        self.model = model.to(device).eval()
        self.tokenizer = tokenizer
        self.device = device
        self.beams = beams
        self.usage: Counter[str] = Counter()
        self.budget = BUDGETS[device.type != "cpu"]
        self.appetite = APPETITES[device.type != "cpu"]
        self._kind = model.config.model_type
        self.codes = _codes(tokenizer, self._kind)
        self.sources, self.targets = self._direction()
        self._room = int(getattr(model.config, "max_position_embeddings", None) or UNBOUNDED)
        self.generator = TextGenerator(self.model, tokenizer, self.usage)
        # How long answers may be is given with each; an end that is forced there would look like a real one.
        model.generation_config.max_length = None
        model.generation_config.forced_eos_token_id = None

    @property
    def fingerprint(self) -> str:
        return f"{self.revision}/{self.model.dtype}/{self.beams}/{LONGEST}"

    def keep_in(self, journal: Journal) -> TrainedTranslator:
        """The same translator, which keeps what it makes of each piece in a journal, and looks there first."""
        kept = copy(self)
        kept.journal = journal
        return kept

    def translate(self, texts: Sequence[str], sources: Sequence[str | None], to: str) -> list[str]:
        def cut(text: str, source: str | None) -> list[str]:
            return [part for sentence in split_sentences(text) for part in self.cut_sentence(sentence)]

        return translate_pieces(texts, sources, to, cut, lambda pieces: self._translate(pieces, to), self.usage)

    @property
    def _reads_source(self) -> bool:
        """Whether the model reads the source language's token, and begins its answer with the target's."""
        return self._kind not in ("marian", "t5")

    def _direction(self) -> tuple[frozenset[str] | None, frozenset[str] | None]:
        """The languages that the model reads and writes, None where that cannot be known."""
        known = frozenset(self.codes)
        if self._reads_source:
            return known, known
        if self._kind == "t5":
            return None, known
        one, other = (_single(getattr(self.tokenizer, side, None)) for side in ("source_lang", "target_lang"))
        written = known | {other} if other else known
        return frozenset([one]) if one else None, written or None

    def cut_sentence(self, sentence: str) -> list[str]:
        """A sentence in parts that the model reads whole; counted where these are several."""
        special = self.tokenizer.num_special_tokens_to_add() + 2  # MADLAD's and OPUS-MT's mark of the target
        most = min(LONGEST, self._room) - special

        def fits(text: str) -> bool:
            return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) <= most

        # A token has at least one byte: short sentences need not be counted.
        parts = [sentence] if len(sentence.encode()) < most else split_to_fit(sentence, fits)
        self.usage["split_sentences"] += len(parts) > 1
        return parts

    def _translate(self, pieces: Sequence[Piece], to: str) -> list[str]:
        """Each piece in the language `to`; empty where its language is not known and the model must read it."""
        translated = [""] * len(pieces)
        rows: list[int] = []
        inputs: list[Reading] = []
        for source, some in group_positions(source for _, source in pieces).items():
            if self._reads_source and source is None:
                self.usage["unknown_language"] += len(some)
                continue
            rows += some
            for ids in self._encode([pieces[row][0] for row in some], source, to):
                inputs.append((ids, min(_longest_answer(len(ids)), self._room - 2)))
        first = self._language_token(self.codes[to]) if self._reads_source else None

        def write(some: Sequence[Reading]) -> list[str]:
            given = collate([ids for ids, _ in some], fill=self.generator.pad, device=self.device)
            options: dict[str, Any] = {"num_beams": self.beams, "forced_bos_token_id": first}
            answers = self.generator.write(given, Sampling(some[0][1]), begins=1 + (first is not None), **options)
            self.usage["calls"] += len(some)
            self.usage["cut_answers"] += sum(not answer.ended for answer in answers)
            self.usage["empty"] += sum(not answer.text.strip() for answer in answers)
            return [" ".join(answer.text.split()) for answer in answers]

        keys = [self._key(each, to) for each in inputs] if self.journal is not None else []
        if self.journal is not None:
            found = [self.journal.get(key) for key in keys]
            for row, text in zip(rows, found, strict=True):
                translated[row] = text or ""
            left = [n for n, text in enumerate(found) if text is None]
            rows, inputs, keys = [rows[n] for n in left], [inputs[n] for n in left], [keys[n] for n in left]
        written = Counter(self.usage)

        # Answers of one limit go together: a search with beams depends on it.
        parts = [some for _, some in sorted(group_positions(limit for _, limit in inputs).items(), reverse=True)]
        names = [pieces[row][0][:40] for row in rows]
        cost = lambda each: self.beams * (len(each[0]) + each[1])  # noqa: E731
        for n, text in run_batches(inputs, cost, write, self.budget, names, parts):
            translated[rows[n]] = text
            if self.journal is not None:
                self.journal.put(keys[n], text, self.usage - written)
                written = Counter(self.usage)
        return translated

    def _key(self, reading: Reading, to: str) -> str:
        """All that a translation depends on, as 32 hex digits."""
        return hashlib.blake2b(f"{self.fingerprint} {to} {reading}".encode(), digest_size=16).hexdigest()

    def _encode(self, texts: Sequence[str], source: str | None, to: str) -> list[tuple[int, ...]]:
        """The tokens that the encoder reads, special ones and those of the languages included."""
        code: str | None
        if self._reads_source:
            where, code = "source", self.codes[source or ""]
            self.tokenizer.src_lang = code
        else:
            where, code = "target", self.codes.get(to)
            texts = [f"{self._write_language(code)} {text}" for text in texts] if code else texts
        rows = self.tokenizer(list(texts), verbose=False)["input_ids"]
        mark = self._language_token(code) if code else None
        if mark is not None and any(mark not in row for row in rows):
            raise InputError(f"{self.name}: its tokenizer leaves out the token of the {where} language")
        return [tuple(row) for row in rows]

    def _write_language(self, code: str) -> str:
        return {"marian": f">>{code}<<", "t5": f"<2{code}>"}.get(self._kind, code)

    def _language_token(self, code: str) -> int:
        """The token of a language as the model writes it."""
        if hasattr(self.tokenizer, "get_lang_id"):  # M2M100 keeps its languages apart from the vocabulary
            return int(self.tokenizer.get_lang_id(code))
        return int(self.tokenizer.convert_tokens_to_ids(self._write_language(code)))


def _tokenizer(source: Source) -> Any:
    try:
        return source.load_tokenizer()
    except InputError:
        # Without them transformers takes a sentencepiece file for one of tiktoken, and says so.
        if all(importlib.util.find_spec(each) for each in ("sentencepiece", "google")):
            raise
        raise InputError(
            f"the tokenizer of {source} needs sentencepiece and protobuf: pip install 'crosslens[translate]'"
        ) from None


def _longest_answer(tokens: int) -> int:
    """How many tokens a translation of so many may have: twice as many and some, up to a power of two."""
    return 1 << (2 * tokens + 15).bit_length()


def _codes(tokenizer: Any, kind: str) -> dict[str, str]:
    """The model's code of each language (ISO 639-3) that its vocabulary has."""
    if hasattr(tokenizer, "lang_code_to_id") and kind == "m2m_100" and hasattr(tokenizer, "get_lang_id"):
        return _preferred(tokenizer.lang_code_to_id, _BARE)
    order: Mapping[str, int] = tokenizer.get_vocab()
    return _preferred(sorted(order, key=order.__getitem__), _MARKS[kind])


def _preferred(written: Iterable[str], mark: re.Pattern[str]) -> dict[str, str]:
    """Codes by ISO 639-3: of several the one in the usual script, of the usual country, without a detour."""
    # NLLB has zho_Hans and zho_Hant, pes_Arab and prs_Arab (Dari, filed under Persian), ...
    import langcodes

    found: dict[str, list[tuple[int, bool, bool, int, str]]] = {}
    for place, text in enumerate(written):
        if not (match := mark.fullmatch(text)):
            continue
        try:
            code = parse_language(match["base"])
        except InputError:  # M2M100's ns is no code
            continue
        script = match["script"]
        usual = langcodes.Language.get(code).maximize().script
        strange = 0 if script == usual else 1 if script is None else 2
        elsewhere = langcodes.Language.get(match["base"]).prefer_macrolanguage().territory is not None
        inner = text[2:-2] if text.startswith(">>") else text[2:-1] if text.startswith("<2") else text
        found.setdefault(code, []).append((strange, elsewhere, match["base"] != code, place, inner))
    return {code: min(ways)[-1] for code, ways in found.items()}


def _single(written: object) -> str | None:
    """The one language that a tokenizer's `source_lang` names; None for groups of them (ROMANCE, mul, sla)."""
    code = next(iter(_preferred([written], _BARE)), None) if isinstance(written, str) else None
    return None if code is None or name_language(code).endswith("languages") else code
