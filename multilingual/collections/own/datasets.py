"""Data sets of Hugging Face's `datasets`: saved on disk, or by name. No code of a data set is ever run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ....errors import InputError, first_line
from ....files import read_json
from ....rows.arrow import BATCH, find_labels, read_batch, read_labels
from ..records import Rows
from .row_files import ArrowFiles
from .tables import RowCollection

SPLITS, STATE = "dataset_dict.json", "state.json"  # of all splits, and of one


class SavedDataset(RowCollection):
    """`dataset:DIR[?columns=id=docno,text=title+body]`, or just DIR: what `save_to_disk` of `datasets` wrote.

    Its Arrow files are read by pyarrow, and no picture is decoded. Of several splits DIR/SPLIT names one.
    """

    usage = "write dataset:DIR, where DIR is what save_to_disk wrote"
    taken = "a directory that save_to_disk of datasets wrote"

    def __init__(self, where: str | Path, *, columns: str | None = None, skip_bad: bool = False) -> None:
        root = Path(where).resolve()
        if not self.recognises(root):
            raise InputError(f"the directory {where} has neither {STATE} nor {SPLITS}: {self.usage}")
        if (root / SPLITS).is_file():
            splits = [str(each) for each in _read_field(root / SPLITS, "splits")]
            if len(splits) != 1:
                raise InputError(f"{where} has the splits {', '.join(splits)}: name one of them, {where}/{splits[0]}")
            if not splits[0] or splits[0] == ".." or Path(splits[0]).name != splits[0]:
                raise InputError(f"{root / SPLITS} names the split {splits[0]!r}, which does not lie beside it")
            root /= splits[0]
        files = [str(each.get("filename")) for each in _read_field(root / STATE, "_data_files")]
        if not files or any(Path(name).name != name for name in files):
            raise InputError(f"{root / STATE} names no files that lie beside it: save the data set once more")
        source = ArrowFiles([root / name for name in files], parquet=False)
        super().__init__(root.name, source, root, where=str(root), columns=columns, skip_bad=skip_bad)

    @staticmethod
    def recognises(path: Path) -> bool:
        return (path / STATE).is_file() or (path / SPLITS).is_file()


class HubDataset(RowCollection):
    """`hfd:NAME[?split=train][&config=en][&columns=...]`: a data set of the Hugging Face hub, streamed by `datasets`.

    NAME may also be a directory of its files. Pictures are taken from the rows, and nothing else is fetched for them.
    """

    usage = "write hfd:OWNER/NAME?split=train"

    def __init__(
        self,
        where: str,
        *,
        split: str | None = None,
        config: str | None = None,
        columns: str | None = None,
        skip_bad: bool = False,
    ) -> None:
        name = "-".join(part for part in (where.rstrip("/").rpartition("/")[2], config, split) if part)
        source = HubRows(where, split, config)
        # No row may name a file of this machine.
        super().__init__(name, source, Path("/dev/null"), where=where, columns=columns, skip_bad=skip_bad)
        self.root = None


class HubRows:
    """The rows of one split of a data set, fetched while they are read."""

    more = False

    def __init__(self, where: str, split: str | None, config: str | None) -> None:
        self._where = where
        try:
            import datasets
        except ImportError:
            raise InputError(f"hfd:{where} needs datasets: pip install 'crosslens[datasets]'") from None
        if not where:
            raise InputError(f"hfd: does not say which data set: {HubDataset.usage}")
        try:
            data = datasets.load_dataset(where, config, split=split, streaming=True)
            if isinstance(data, dict):
                if len(data) > 1:
                    raise InputError(f"hfd:{where} has the splits {', '.join(data)}: add ?split={next(iter(data))}")
                data = next(iter(data.values()))
            self._data = data.with_format("arrow")  # in which nothing is decoded
            if data.features:
                self.names: Sequence[str] = list(data.features)
                self._labels = read_labels(data.features.to_dict())
            else:
                first = next(islice(self._data.iter(batch_size=1), 1), None)
                self.names = [] if first is None else first.schema.names
                self._labels = {} if first is None else find_labels(first.schema)
        except (ValueError, OSError, RuntimeError, NotImplementedError) as error:
            if isinstance(error, InputError):
                raise
            said = " ".join(str(error).split())[:400]
            raise InputError(f"cannot open the data set {where}: {said}; {HubDataset.usage}") from None

    def rows(self, wanted: Sequence[str]) -> Rows:
        number = 0
        try:
            for batch in self._data.iter(batch_size=BATCH):
                there = [name for name in wanted if name in batch.schema.names]
                for row in read_batch(batch.select(there), self._labels):
                    number += 1
                    yield f"{self._where}: row {number}", _check_pictures(row)
        except (ValueError, OSError, RuntimeError) as error:
            raise InputError(f"cannot read {self._where} after row {number}: {first_line(error)}") from None


def _check_pictures(row: dict[str, Any]) -> dict[str, Any] | InputError:
    for name, value in row.items():
        if isinstance(value, dict) and value.keys() == {"bytes", "path"} and value["path"] and not value["bytes"]:
            return InputError(
                f"{name} has the path {value['path']!r} and no content: download the data set, and give its folder"
            )
    return row


def _read_field(path: Path, key: str) -> list[Any]:
    held = read_json(path)
    found = held.get(key) if isinstance(held, dict) else None
    if not isinstance(found, list) or (key == "_data_files" and not all(isinstance(each, dict) for each in found)):
        raise InputError(f"{path} is not what save_to_disk writes: it has no list {key}")
    return found
