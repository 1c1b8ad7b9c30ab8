"""`ensemble:` several encoders as one: `ensemble:offline:e5-small+offline:use-m3?weights=12,1`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from urllib.parse import quote, unquote

import numpy as np

from ..errors import InputError
from ..items import Dense, Item, Role, windows
from ..media.language_codes import find_language
from ..media.modalities import MEDIA
from .base import Encoder, EncoderSpec, Tokenizes, check_modalities, encode_matrix, has_spans, unit
from .batching import WINDOW
from .registry import load_encoder


class Ensemble:
    """Encoders side by side: one float32 vector [sum of their dims] of length 1, their unit vectors concatenated.

    Each is scaled by the root of its weight, so that the inner product of two vectors is the weighted mean of the
    members' cosines, and any index, ANN and fused queries work as for one encoder. (Weights are of cosines as they
    are: an encoder whose cosines lie close together counts for less than its weight. An index made with several
    encoders, `Index.add(items, [one, other])`, is the ensemble of scores: it makes them z-scores over each space
    before it sums them.) Items are read in the modalities that all members read.

    A member that has `known_languages` (ISO 639-3) has no part in items of others: its part of the vector is zero
    there, and the rest has length 1. So what it does not know is ranked by the others, on the same scale. Where no
    member knows an item's language, or the item has none, all take part.
    """

    def __init__(self, members: Sequence[Encoder], weights: Sequence[float] | None = None) -> None:
        """`weights` one a member, by default equal; they are scaled to sum to 1.

        `InputError` for fewer than two members, weights that are not positive or not as many, members that are not
        dense, that have no modality in common, or that are the same space twice.
        """
        given = [1.0] * len(members) if weights is None else list(weights)
        specs = [member.spec for member in members]
        names = [spec.name for spec in specs]
        if len(members) < 2:
            raise InputError("an ensemble needs two encoders or more: ensemble:SPEC+SPEC")
        if len(given) != len(members):
            raise InputError(f"weights are for {len(given)} encoders, and the ensemble has {len(members)}")
        if not all(0 < weight < float("inf") for weight in given):
            raise InputError(f"the weights of an ensemble must be above 0, not {given}")
        if others := [spec for spec in specs if spec.kind != "dense"]:
            raise InputError(f"{others[0].name} is not a dense encoder, and an ensemble joins dense vectors")
        if len({spec.fingerprint for spec in specs}) < len(specs):
            raise InputError(f"the ensemble names an encoder twice: {', '.join(names)}")
        shared = tuple(m for m in ("text", *MEDIA) if all(m in spec.modalities for spec in specs))
        if not shared:
            read = "; ".join(f"{spec.name} reads {' and '.join(spec.modalities)}" for spec in specs)
            raise InputError(f"the encoders of an ensemble have no modality in common: {read}")
        self.members = list(members)
        self._known = [sorted(getattr(member, "known_languages", ())) for member in members]
        self.weights = [weight / sum(given) for weight in given]
        self.spec = EncoderSpec(
            name=f"ensemble:{'+'.join(quote(name, safe='/:,@') for name in names)}",
            revision="+".join(spec.revision for spec in specs),
            modalities=shared,
            dim=sum(spec.dim for spec in specs),
            pooling="concat",
            max_tokens=min((spec.max_tokens for spec in specs if spec.max_tokens), default=0),
            max_pixels=min(spec.max_pixels for spec in specs) if "image" in shared else 0,
            extra={
                "members": [spec.space for spec in specs],
                "weights": self.weights,
                **({"languages": self._known} if any(self._known) else {}),
            },
            dtype="+".join(sorted({spec.dtype for spec in specs})),
        )

    @classmethod
    def from_checkpoint(
        cls, checkpoint: str, *, device: str = "auto", trust_remote_code: bool = False, weights: str | None = None
    ) -> Ensemble:
        """Load the members: their SPECs with + between them, and in each of them ? & + and % percent-encoded
        (`hf:intfloat/multilingual-e5-base%3Fdim=256+clip:...`); `weights` has commas between.

        `InputError` for a member that does not load, or weights that are not numbers.
        """
        named = [unquote(each) for each in checkpoint.split("+")]
        if not all(each.strip() for each in named):
            raise InputError(f"ensemble:{checkpoint} has an empty member; write ensemble:SPEC+SPEC")
        try:
            numbers = None if weights is None else [float(each) for each in weights.split(",")]
        except ValueError:
            raise InputError(f"weights={weights!r} are not numbers with commas between, as 1,0.5") from None
        if numbers is not None and len(numbers) != len(named):
            # Before the members are loaded.
            raise InputError(f"weights={weights} are {len(numbers)}, and the ensemble has {len(named)} encoders")
        members = [load_encoder(each, device=device, trust_remote_code=trust_remote_code) for each in named]
        return cls(members, numbers)

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Dense]:
        """One `Dense` of float32 [n, dim] a window of items; each member reads what all of them can."""
        for group in windows(items, WINDOW):
            check_modalities(group, self.spec)
            shared = [_keep(item, self.spec.modalities) for item in group]
            joined = np.zeros((len(shared), self.spec.dim), np.float32)
            start = 0
            for member, weight, rows in zip(self.members, self.weights, self._assign(shared), strict=True):
                end = start + member.spec.dim
                if rows:
                    joined[rows, start:end] = np.sqrt(weight) * unit(
                        encode_matrix(member, [shared[row] for row in rows], role)
                    )
                start = end
            yield Dense([item.id for item in group], unit(joined))

    def _assign(self, items: Sequence[Item]) -> list[list[int]]:
        """The rows of the items that each member takes part in."""
        known: dict[str | None, list[bool]] = {None: [True] * len(self.members)}
        for lang in {item.lang for item in items} - {None}:
            code = find_language(lang)
            knows = [not languages or code in languages for languages in self._known]
            known[lang] = knows if any(knows) else known[None]
        return [[row for row, item in enumerate(items) if known[item.lang][n]] for n in range(len(self.members))]

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text, int64 [tokens, 2] (`encoders.base.Tokenizes`).

        What lies between places where all members' tokens begin has the tokens of the member that has most there, all
        with that span: what is cut by them fits into each. Members that do not say (and read any length) are left
        out; `InputError` if none can.
        """
        found = [member.token_spans(texts) for member in self._tokenizing()]
        return [join_spans(text, spans) for text, *spans in zip(texts, *found, strict=True)]

    def room(self, role: Role = "document") -> int:
        """How many tokens of a text fit into every member (`encoders.base.Tokenizes`)."""
        return min(member.room(role) for member in self._tokenizing())

    def _tokenizing(self) -> list[Tokenizes]:
        able: list[Tokenizes] = [member for member in self.members if has_spans(member)]
        if not able:
            raise InputError(f"none of {self.spec.name} says where its tokens are")
        return able


def join_spans(text: str, members: Sequence[np.ndarray]) -> np.ndarray:
    """Tokens that stand for those of several tokenizers, int64 [tokens, 2] from each one's [tokens, 2]."""
    # Some tokenizers count the space before a word to its token, some do not.
    solid = np.array([not letter.isspace() for letter in text], bool)
    after = np.append(np.where(solid, np.arange(len(text)), len(text)), len(text))
    after = np.minimum.accumulate(after[::-1])[::-1]
    starts = [after[spans[:, 0]] for spans in members]
    cuts: np.ndarray | None = None
    for mine, spans in zip(starts, members, strict=True):
        reached = np.maximum.accumulate(np.append(0, spans[:, 1]))[:-1]
        free = np.unique(mine[(mine >= reached) & (mine < len(text))])
        cuts = free if cuts is None else np.intersect1d(cuts, free)
    if cuts is None or not len(cuts):
        return np.zeros((0, 2), np.int64)
    counts = np.zeros(len(cuts), np.int64)
    for mine in starts:
        places = np.maximum(np.searchsorted(cuts, mine, side="right") - 1, 0)
        counts = np.maximum(counts, np.bincount(places, minlength=len(cuts)))
    spans = np.stack([cuts, np.append(cuts[1:], len(text.rstrip()))], axis=1)
    return np.repeat(spans, counts, axis=0)


def _keep(item: Item, modalities: Collection[str]) -> Item:
    """An item without what is of other modalities."""
    return replace(
        item,
        text=item.text if "text" in modalities else None,
        image=item.image if "image" in modalities else None,
        media={name: value for name, value in item.media.items() if name in modalities},
    )
