"""The built-in collection `demo`, the tour that `crosslens demo` takes through it, and its contact sheet."""
