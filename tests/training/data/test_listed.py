"""What `crosslens models` lists of sources."""

from crosslens.commands.models import list_models


def test_the_sources_of_synthesize_are_listed() -> None:
    listed = list_models()["sources"]
    assert {"inpars@family:checkpoint", "doc2query@family:checkpoint", "ict", "titles", "translations"} <= set(listed)
