"""Experiment files: what they hold, and what is wrong with them before anything is read."""

from __future__ import annotations

import pytest
from crosslens import InputError
from crosslens.evaluation.experiment.conduct import parse_systems
from crosslens.evaluation.experiment.plan import Plan
from stand_ins.table import table

LEAST = {"collections": ["demo"], "systems": {"dense": "dense"}}


@table(
    ("keys", "message"),
    [
        ({"collections": ["demo"]}, "no systems"),
        ({**LEAST, "mesures": ["AP"]}, "did you mean measures?"),
        ({**LEAST, "measures": ["nDGC@20"]}, "nDGC@20"),
        ({**LEAST, "baseline": "dens"}, "did you mean dense?"),
        ({**LEAST, "correction": "holms"}, "did you mean holm?"),
        ({**LEAST, "k": 0}, "k must be at least 1"),
        ({**LEAST, "k": "many"}, "k must be a whole number"),
        ({**LEAST, "interval": 95}, "between 0 and 1"),
        ({**LEAST, "seed": -5}, "seed must be at least 0"),
        ({**LEAST, "k": 10**12}, "k must be at most"),
        ({**LEAST, "fields": "titel"}, "did you mean title?"),
        ({**LEAST, "systems": {"a": {"pipeline": "dense"}}}, "[systems] must be a table"),
        ({**LEAST, "collections": ["demo", "demo"]}, "the collection demo is given twice"),
    ],
)
def test_a_plan_says_what_is_wrong_with_it(keys, message):
    with pytest.raises(InputError) as error:
        Plan.of(keys)
    assert message in str(error.value)


@table(
    ("line", "message"),
    [
        ("dens", "did you mean dense?"),
        ("dense?encoder=e6", "known: e5"),
        ("dense?lnag=rus", "did you mean lang?"),
        ("dense?documents=english", "unknown documents"),
        ("lexical?encoder=e5", "lexical search has no encoder"),
        ("dense?window=10&stride=20", "the stride of passages must be in 1..10, their window, not 20"),
        ("run?file=none.trec", "there is no run 'none.trec'"),
        ("translations?file=none.tsv", "there is no file 'none.tsv'"),
        ("dense >> likelihod@offline:gemma", "did you mean likelihood?"),
        ("dense >> likelihood@offline:gemma?depht=3", "did you mean depth?"),
        ("translate@offline:gemma >> dense", "does not say into which language"),
    ],
)
def test_a_wrong_system_is_named_before_anything_is_read(line, message):
    plan = Plan.of({**LEAST, "encoders": {"e5": "offline:e5-small"}, "systems": {"mine": line}})
    with pytest.raises(InputError) as error:
        parse_systems(plan)
    assert "the system 'mine'" in str(error.value)
    assert message in str(error.value)


def test_two_systems_of_one_name_are_refused(crosslens, tmp_path):
    file = tmp_path / "two.toml"
    file.write_text('collections = ["demo"]\n[systems]\na = "dense"\na = "lexical"\n')
    status, out, err = crosslens("experiment", file)
    assert (status, out) == (2, "")
    assert "a name is given twice" in err
    assert "line 4" in err
