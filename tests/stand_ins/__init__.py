"""Stand-ins for what tests cannot have: a server of language models, and vLLM on an accelerator."""
