"""Stand-ins for what tests cannot have: a server of language models, vLLM on an accelerator, published collections.

And for what they need not have: encoders without a model, and items for them.
"""
