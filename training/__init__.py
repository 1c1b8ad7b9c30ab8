"""Training: data made from a collection, and (later) what is trained on it."""
