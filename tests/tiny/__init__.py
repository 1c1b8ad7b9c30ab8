"""Builders of tiny random-weight checkpoints: the real loading code runs, without a download.

Fixtures of `tests/conftest.py` build most of them once a session; a test that needs one of its own imports a builder:
`from tiny.text import save_llm`.
"""
