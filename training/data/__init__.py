"""Training data: pairs of a query and a document, written by a language model or mined without one."""
