"""The model of the language identifier, unpacked once into the cache: to unpack it takes longer than to search."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.mapped import map_tensors
from ..checkpoints.offline.packages import locate_cache
from ..checkpoints.uses import hold
from ..errors import InputError
from ..files import make_directory, place_atomically

log = logging.getLogger("crosslens")


def open_identifier_model() -> Any:
    """py3langid's model with normalised probabilities, its 68 MB mapped from the cache; unpacked if they cannot be."""
    # A model of our own: the module's shared one may have been narrowed by someone's `set_languages`.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    path = locate_cache() / f"languages-{version('py3langid')}.safetensors"
    if path.is_file():
        try:
            model = _map_model(path)
            hold(path)
            return model
        except (OSError, ValueError, KeyError) as error:  # cut short by a full disk
            log.warning("%s is damaged (%s): it is made again", path, str(error))
    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    with suppress(InputError):  # a cache that cannot be written costs time alone
        _keep_model(path, model)
    return model


def _map_model(path: Path) -> Any:
    from py3langid.langid import LanguageIdentifier

    held = map_tensors(path)
    arrays = held.arrays
    # Steps and rows are looked up one by one: of an array of numpy each would be an object of its own.
    steps, rows = arrays["steps"].data, arrays["rows"].data
    return LanguageIdentifier(
        arrays["features"], arrays["priors"], json.loads(held.about["labels"]), steps, arrays["output"].tolist(),
        norm_probs=True, tk_row=rows,
    )  # fmt: skip


def _keep_model(path: Path, model: Any) -> None:
    from safetensors.numpy import save_file

    arrays = {
        "features": np.asarray(model.nb_ptc),
        "priors": np.asarray(model.nb_pc),
        "steps": np.asarray(model.tk_nextmove, np.uint32),
        "rows": np.asarray(model.tk_row, np.uint32),
        "output": np.asarray(model.tk_output, np.int32),
    }
    make_directory(path.parent)
    with place_atomically(path) as partial:
        save_file(arrays, partial, {"labels": json.dumps(model.nb_classes)})
