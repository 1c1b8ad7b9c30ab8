"""Stand-ins for what tests cannot have: a server of language models, vLLM on an accelerator, published collections."""
