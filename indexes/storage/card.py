"""The card of an index: what it is, which encoders made its vectors, what it holds, and whether it is finished."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ...encoders.base import EncoderSpec
from ...errors import InputError, SpecMismatch, list_few, unknown_name
from ...items import open_seal, seal
from ...media.modalities import join_modalities
from ...specs import check_types
from .analysis import ANALYSIS
from .checksums import Checksums

FORMAT = 1
LIBRARIES = ("crosslens", "lancedb", "torch", "transformers")  # whose versions a card has
GRACE = 600.0  # seconds that an earlier edition is kept for readers that still search it


@dataclass(frozen=True)
class Recall:
    """What approximate search finds of what exact search finds, measured on stored vectors as queries.

    `kind` is the index that was built (`flat` when exact search is used); `at` maps a cutoff to recall in 0..1.
    """

    kind: str
    queries: int = 0
    at: Mapping[int, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class Ann:
    """An approximate index over a space: how it is searched, and what that was measured to find.

    `filtered` holds the probes and recall@10 under a filter on one language that keeps about `kept` of the
    rows. `files` maps the names of files that hold it, beside the card, to their sha256.
    """

    kind: str
    probes: int
    filtered_probes: int
    refine: int
    recall: dict[int, float] = field(default_factory=dict)
    filtered: float | None = None
    kept: float | None = None
    queries: int = 0
    seconds: float = 0.0
    files: dict[str, str] = field(default_factory=dict)


@dataclass
class Space:
    """The vectors of one encoder; `counts` maps what it read (`text`, `image`, `text+image`) to documents."""

    spec: EncoderSpec
    counts: dict[str, int] = field(default_factory=dict)
    multilingual: bool = False  # it is searched corrected
    ann: Ann | None = None

    @property
    def fingerprint(self) -> str:
        return self.spec.fingerprint

    @property
    def column(self) -> str:
        """The column of its vectors as encoded."""
        return f"v_{self.fingerprint}"

    @property
    def whole(self) -> str:
        """The column of the vectors of whole documents, where passages count together with these."""
        return f"d_{self.fingerprint}"

    @property
    def corrected(self) -> str:
        """The column of its language-corrected vectors, in their own table."""
        return f"c_{self.fingerprint}"

    @property
    def count(self) -> int:
        """How many documents have vectors."""
        return sum(self.counts.values())

    def reads(self, modality: str) -> str:
        """What the encoder reads of a document of a modality (`text+image`); empty if nothing."""
        return join_modalities(set(modality.split("+")) & set(self.spec.modalities))

    def read_all(self, modalities: Sequence[str]) -> list[str]:
        """`reads` for each of many documents, whose modalities are few."""
        read = {each: self.reads(each) for each in set(modalities)}
        return [read[each] for each in modalities]


@dataclass(frozen=True)
class Windows:
    """How documents are split into passages: `window` tokens each, a new one every `stride` tokens.

    The defaults are those of ColBERT-X on the long news of NeuCLIR (Nair et al. 2022; Yang et al. 2024). Tokens are
    those of the index's first encoder of text that says where its tokens are, or of the encoder that the SPEC
    `tokenizer` names, as an index without encoders needs. `InputError` unless 1 <= stride <= window.
    """

    window: int = 180
    stride: int = 90
    tokenizer: str = ""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise InputError(f"the window of passages must have at least 1 token, not {self.window}")
        if not 1 <= self.stride <= self.window:
            raise InputError(f"the stride of passages must be in 1..{self.window}, their window, not {self.stride}")

    @classmethod
    def of(cls, window: int | None = None, stride: int | None = None, *, whole: bool = False) -> Windows:
        """Windows of which one number, or neither, is given; `whole` makes `JointWindows`.

        A stride is as much of its window as in the defaults: half of it, or, beside whole documents, all of it.
        """
        made = JointWindows if whole else cls
        window = made.window if window is None else window
        return made(window, max(1, window * made.stride // made.window) if stride is None else stride)

    def __str__(self) -> str:
        by = f" of {self.tokenizer}" if self.tokenizer else ""
        return f"passages of {self.window} tokens{by} (stride {self.stride})"


@dataclass(frozen=True)
class JointWindows(Windows):
    """Windows that count together with their whole document.

    The score of a document is `share` times that of its best passage, and 1 - `share` times that of the whole. Size and
    share are those of benchmarks/windows.py. `InputError` unless 0 < share < 1.
    """

    window: int = 64
    stride: int = 64
    share: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise InputError(f"the share of passages must be above 0 and below 1, not {self.share}")

    def __str__(self) -> str:
        return f"{super().__str__()} for {self.share:g} of the score, beside whole documents"


FIRST = "#0"  # how the ids of documents' first passages end: each document has just one


@dataclass
class Passages:
    """What the rows of an index of passages were made by, and how many there are.

    `encoder` is the fingerprint of the encoder whose tokens were counted, where `windows` names none.
    """

    windows: Windows | JointWindows
    encoder: str = ""
    count: int = 0


@dataclass(frozen=True)
class Edition:
    """A complete state of an index that another one has followed `ended` seconds after the epoch.

    `versions` are those of its tables, `files` the names of its derived files.
    """

    versions: Mapping[str, int]
    files: Sequence[str]
    ended: float


@dataclass
class Card:
    """The state of an index beside its tables, `crosslens.json`.

    With `passages` the rows are parts of documents; `documents` and `langs` count whole documents all the same.
    `checksums` are those of each file of the index when it was last complete (`storage.checksums`). `analysis` is the
    version of the analysis that made the columns of full text (`storage.analysis`).

    An index goes from one complete edition to the next. `edition` counts them; `versions` are those of the tables that
    belong to it (none on cards of earlier crosslens, and while it is unfinished), and `files` says under which names
    its derived files lie. `last` is the card of the last complete edition while a change is under way, which readers
    go by; `earlier` lists editions that may still be read, for `grace` seconds after they ended.

    `changed` is when the edition was complete, in seconds after the epoch, and `made_by` the versions of crosslens and
    other libraries then; cards of earlier crosslens have neither.
    """

    kind: str
    name: str = ""
    lexical: bool = True
    complete: bool = False
    spaces: list[Space] = field(default_factory=list)
    documents: int = 0
    langs: dict[str, int] = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    content: str = ""
    passages: Passages | None = None
    checksums: Checksums = field(default_factory=dict)
    analysis: int = ANALYSIS
    grace: float = GRACE
    edition: int = 0
    versions: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    earlier: list[Edition] = field(default_factory=list)
    last: Card | None = None
    changed: float = 0.0
    made_by: dict[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """12 hex digits over documents, spaces and all else that decides what a search finds."""
        parts: list[object] = [
            self.kind,
            self.lexical,
            self.content,
            [(space.fingerprint, space.ann and asdict(space.ann) | {"seconds": 0}) for space in self.spaces],
        ]
        if self.passages is not None:
            parts.append(asdict(self.passages.windows))
        if self.lexical and self.analysis > 1:
            parts.append(f"analysis {self.analysis}")
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    @property
    def share(self) -> float:
        """How much of a score is that of a passage; the rest is that of its whole document."""
        windows = self.passages and self.passages.windows
        return windows.share if isinstance(windows, JointWindows) else 1.0

    def space(self, spec: EncoderSpec) -> Space:
        """The space that `spec` belongs to; `SpecMismatch` naming what differs from the likeliest one."""
        for space in self.spaces:
            if space.fingerprint == spec.fingerprint:
                return space
        if not self.spaces:
            raise SpecMismatch(f"this index holds no vectors, so none of {spec.name}")
        likely = min(self.spaces, key=lambda space: (space.spec.name != spec.name, space.spec.difference(spec)))
        spec.require(likely.spec)
        raise AssertionError("equal specs have equal fingerprints")

    def find_space(self, encoder: str | None = None) -> Space:
        """The space of the encoder with this SPEC or fingerprint; without one, the only space.

        `InputError` if there is none, or if there are several to choose from.
        """
        if not self.spaces:
            raise InputError("the index holds no vectors: it is one of full text alone")
        names = [space.spec.name for space in self.spaces]
        if encoder is None:
            if len(self.spaces) > 1:
                chosen = f"choose one ({list_few(names, 8)}) with --encoder, in Python with encoder="
                raise InputError(f"the index holds vectors of several encoders: {chosen}")
            return self.spaces[0]
        for space in self.spaces:
            if encoder in (space.spec.name, space.fingerprint):
                return space
        raise unknown_name(encoder, [*names, *(space.fingerprint for space in self.spaces)], "encoder of the index")

    def sign(self) -> None:
        """Note when and by what the edition was made."""
        self.changed = time.time()
        self.made_by = {}
        for library in LIBRARIES:
            with suppress(PackageNotFoundError):
                self.made_by[library] = version(library)

    @property
    def readable(self) -> Card:
        """The card that readers go by: this one, or that of the last complete edition while a change is under way."""
        return self if self.complete or self.last is None else self.last

    def begin(self) -> None:
        """Note that the next edition is under way."""
        self.last = replace(deepcopy(self), earlier=[], last=None)
        self.complete = False
        self.edition += 1
        self.versions = {}

    def finish(self, versions: Mapping[str, int]) -> None:
        """Note that the edition is complete; what is no longer needed of earlier ones is forgotten."""
        now = time.time()
        self.earlier = self.list_kept(now)
        if self.last is not None:
            self.earlier.append(Edition(self.last.versions, list(self.last.files.values()), now))
        self.last = None
        self.versions = dict(versions)
        self.complete = True

    def list_kept(self, now: float) -> list[Edition]:
        """The earlier editions that may still be read, at a time in seconds after the epoch."""
        return [each for each in self.earlier if now - each.ended < self.grace]

    def to_json(self) -> dict[str, Any]:
        spaces = [
            {"fingerprint": space.fingerprint, **asdict(space), "spec": space.spec.to_json()} for space in self.spaces
        ]
        last = self.last and self.last.to_json()
        return seal({"format": FORMAT, **asdict(self), "spaces": spaces, "last": last})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Card:
        """What `to_json` gave; `ValueError`, `KeyError` or `TypeError` if it is damaged."""
        fields = {key: value for key, value in open_seal(data).items() if key != "format"}
        spaces = []
        for stored in fields.pop("spaces"):
            spec = EncoderSpec.from_json(stored["spec"])
            if spec.fingerprint != stored["fingerprint"]:
                raise ValueError(f"the spec of {spec.name} does not match its fingerprint")
            ann = stored["ann"]
            if ann is not None:
                ann = Ann(**{**ann, "recall": {int(k): v for k, v in ann["recall"].items()}})
            spaces.append(Space(spec, stored["counts"], stored["multilingual"], ann))
        # Older indexes have none of these.
        checksums = {name: (int(size), str(sum)) for name, (size, sum) in fields.pop("checksums", {}).items()}
        analysis = int(fields.pop("analysis", 1))
        passages = fields.pop("passages", None)
        if passages is not None:
            windows = passages["windows"]
            made = JointWindows if "share" in windows else Windows
            passages = Passages(**{**passages, "windows": made(**windows)})
        earlier = [Edition(**each) for each in fields.pop("earlier", ())]
        last = (stored := fields.pop("last", None)) and cls.from_json(stored)
        given = {"spaces": spaces, "passages": passages, "checksums": checksums, "earlier": earlier, "last": last}
        card = cls(**given, analysis=analysis, **fields)
        check_types(card)
        return card
