"""Archives of pictures with captions, as img2dataset writes them and clip-retrieval and WebDataset read them."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import NoReturn

from ....errors import InputError, first_line
from ....files import check_file
from ....items import Item
from ....media.images import MAX_BYTES as MAX_PICTURE
from ....rows.fields import FileRow, make_item
from ..base import CollectionCounts, DocumentsAlone, check_collection
from ..passed import PassedOver
from ..records import Rows
from .listing import FoundFile, find_file, find_suffix, list_document_endings, list_media_endings, write_id
from .texts import MAX_BYTES as MAX_TEXT
from .texts import decode_text

PACKED = (".tar", ".tar.gz", ".tgz")
FIELDS = (".txt", ".json", ".cls")  # of a sample, beside its picture
DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, OverflowError)
LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
LONGEST_HEADER = 1 << 20  # bytes of a long name, or of attributes
PACKING = 1100  # gzip makes nothing smaller than by 1 to 1032


class Header(tarfile.TarInfo):
    """The header of a member; `ReadError` on one whose name or attributes would fill the memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Header:
        header = super().frombuf(buf, encoding, errors)
        if header.type in LONG and not 0 <= header.size <= LONGEST_HEADER:
            raise tarfile.ReadError(f"a name or attributes of {header.size:,} bytes")
        return header


@dataclass
class Sample:
    """Members of an archive that share a key: their contents by ending, or what is wrong with one of them."""

    key: str
    shard: str
    media: Mapping[str, str]  # the modality of each ending of a file that is not text
    parts: dict[str, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo, ending: str, passed: PassedOver) -> None:
        """Take a member whose name ends so, or count it in `passed`."""
        medium = self.media.get(ending)
        content = archive.extractfile(member) if medium or ending in FIELDS else None
        most = MAX_PICTURE if medium else MAX_TEXT
        if content is None:
            passed.types[ending or "no ending"] += 1
        elif not member.size:
            passed.empty += 1
        elif member.size > most:
            self.faults.append(f"its {ending} has {member.size:,} bytes, and at most {most:,} are read")
        elif ending in self.parts or (medium and medium in map(self.media.get, self.parts)):
            self.faults.append(f"it has two files of the kind {medium or ending}: keep one")
        else:
            self.parts[ending] = content.read()

    def read_text(self, ending: str) -> str | None:
        """The text of a member, if there is one; `InputError` on what is no text."""
        try:
            return decode_text(self.parts.get(ending, b"")).strip() or None
        except InputError as error:
            raise InputError(f"its {ending} is {error}") from None

    def read(self) -> Item:
        """The document; `InputError` on what is too large, no text, no JSON object, and where there is nothing."""
        if self.faults:
            raise InputError(self.faults[0])
        described = FileRow()
        if ".json" in self.parts:
            try:
                described = FileRow.parse(self.parts[".json"])
            except InputError as error:
                raise InputError(f"its .json is {error}") from None
        text = self.read_text(".txt") or described.read_text("caption")
        meta = {"shard": self.shard, **described.read_meta({"caption", "lang", "key"})}
        if label := self.read_text(".cls"):
            meta["cls"] = label
        media = {self.media[ending]: content for ending, content in self.parts.items() if ending in self.media}
        return make_item("sample", write_id(self.key), text, media, described.read_lang(), meta)


class WebDataset(DocumentsAlone):
    """`webdataset:WHERE`, or just WHERE: an archive .tar or .tar.gz, or a folder of them, read in the order of names.

    Members with one name up to its first dot are a document, and that name is its id: a picture (KEY.jpg, .png, .webp),
    its caption (KEY.txt, else `caption` in the JSON), and metadata (KEY.json; `lang` is the caption's language; KEY.cls
    is a label). Archives are streamed, nothing is extracted. Members of other types are counted in `passed`.
    """

    usage = "write webdataset:WHERE, where WHERE is a .tar file or a folder of them"
    taken = "a .tar (WebDataset) or a folder of them"

    def __init__(self, where: str | Path, *, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self.root = Path(where).resolve()
        self.shown = f"the archive {self.root}" if self.root.is_file() else f"the folder of archives {self.root}"
        self.shards = [find_file(self.root)] if self.root.is_file() else self._list_shards()
        if not self.shards or not self.shards[0].name.lower().endswith(PACKED):
            raise InputError(f"no archive {' or '.join(PACKED)} in {where}: {self.usage}")
        self.name = self.root.name

    @staticmethod
    def recognises(path: Path) -> bool:
        """An archive, or a folder that holds some and no files that would be documents by themselves."""
        if not path.is_dir():
            return path.name.lower().endswith(PACKED)
        with suppress(OSError):
            names = [each.name.lower() for each in path.iterdir() if not each.name.startswith(".")]
            alone = list_document_endings()
            return any(name.endswith(PACKED) for name in names) and not any(
                find_suffix(name) in alone for name in names
            )
        return False

    @cached_property
    def langs(self) -> frozenset[str]:
        """The languages that the metadata declare; reads all archives once."""
        return frozenset(item.lang for item in self.docs() if item.lang)

    def _list_shards(self) -> list[FoundFile]:
        found = [each for each in self.root.iterdir() if each.name.lower().endswith(PACKED) and each.is_file()]
        inside = [each for each in found if each.resolve().is_relative_to(self.root) and not each.name.startswith(".")]
        return [find_file(each) for each in sorted(inside)]

    def document_rows(self) -> Rows:
        """What makes each sample a document, with its place."""
        self.passed = PassedOver()
        for shard in self.shards:
            number = 0
            try:
                for sample in read_samples(shard, self.passed):
                    number += 1
                    yield f"{shard.path}: {sample.key}", sample.read
            except InputError as error:
                yield f"{shard.path}: after sample {number}", partial(_refuse, error)

    def read_document(self, row: Callable[[], Item]) -> Item:
        return row()

    def check(self) -> CollectionCounts:
        """Read everything once and count it; `InputError` where there is no sample."""
        return check_collection(self, str(self.root))


def read_samples(shard: FoundFile, passed: PassedOver) -> Iterator[Sample]:
    """The samples of an archive as a stream; `InputError` where it is damaged, and after what could be read."""
    sample: Sample | None = None
    media = list_media_endings()
    check_file(shard.path)
    try:
        with tarfile.open(shard.path, "r|*", tarinfo=Header) as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # it would remember all
                if not 0 <= member.size <= PACKING * shard.size:  # it would be looked for beyond the end, for years
                    raise tarfile.ReadError(f"a member of {member.size:,} bytes")
                key, ending = _split_name(member.name)
                if not member.isfile():
                    passed.links += not member.isdir()
                elif not key.rpartition("/")[2]:
                    passed.hidden += 1
                else:
                    if sample is None or sample.key != key:
                        if sample is not None and (sample.parts or sample.faults):
                            yield sample
                        sample = Sample(key, shard.name, media)
                    sample.add(archive, member, ending, passed)
    except DAMAGE as error:
        raise InputError(f"a damaged archive ({first_line(error)}): replace it") from None
    if sample is not None and (sample.parts or sample.faults):
        yield sample


def _split_name(name: str) -> tuple[str, str]:
    """The key of a member, its path up to the first dot of the name, and its ending from there, in small letters."""
    folder, slash, name = name.removeprefix("./").rpartition("/")
    stem, dot, ending = name.partition(".")
    return f"{folder}{slash}{stem}", f"{dot}{ending.lower()}"


def _refuse(error: InputError) -> NoReturn:
    raise error
