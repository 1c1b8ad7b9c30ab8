"""Training of rankers: relevance heads, labels and permutations of language models, and reinforcement learning."""
