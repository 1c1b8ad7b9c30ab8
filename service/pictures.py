"""Pictures of documents, as browsers show them: safely opened, and small ones made once."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from PIL import Image

from ..media.drawing import Drawing
from ..media.images import open_image, read_image_file
from .quotas import Unknown
from .systems import Kept, ServedIndex

SIDE = 320  # pixels at the longer side of a small one
THUMBNAILS = 512  # small ones that are kept, of some 15 kB each
SHOWN = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".gif": "image/gif"}


@dataclass(frozen=True)
class Picture:
    """The bytes of a file, its media type, and a tag that changes with it."""

    content: bytes
    kind: str

    @property
    def tag(self) -> str:
        """For `ETag`."""
        return f'"{blake2b(self.content, digest_size=8).hexdigest()}"'


@dataclass
class Pictures:
    """The pictures of the documents of indexes."""

    _small: Kept[Picture] = field(default_factory=lambda: Kept(THUMBNAILS))

    def load(self, served: ServedIndex, id: str) -> Picture:
        """The picture of a document as it is, or as PNG where browsers do not show its format."""
        content, suffix = read_image_file(self._choose(served, id), name=f"the picture of {id!r}")
        if kind := SHOWN.get(suffix):
            return Picture(content, kind)
        written = io.BytesIO()
        open_image(content, name=f"the picture of {id!r}").save(written, "PNG")
        return Picture(written.getvalue(), "image/png")

    def shrink(self, served: ServedIndex, id: str) -> Picture:
        """The picture of a document, at most 320 pixels a side."""
        key = served.name, served.index.view().fingerprint, id
        return self._small.make(key, lambda: self._shrink(served, id))

    def _shrink(self, served: ServedIndex, id: str) -> Picture:
        image = open_image(self._choose(served, id), shortest=SIDE, name=f"the picture of {id!r}")
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        written = io.BytesIO()
        image.save(written, "WEBP", quality=80, method=2)
        return Picture(written.getvalue(), "image/webp")

    def _choose(self, served: ServedIndex, id: str) -> Path | bytes | Image.Image | Drawing:
        item = served.find(id)
        if item.image is None:
            raise Unknown(f"the document {id!r} has no picture")
        return item.image
