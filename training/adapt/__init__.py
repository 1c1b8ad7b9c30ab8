"""An encoder that knows a collection, without labels: queries are made, it is trained on them, and compared."""
