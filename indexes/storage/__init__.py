from .deferred import defer_package

# lancedb takes a third of its time to import for this client of HTTP catalogues, of which it needs the models alone.
defer_package("lance_namespace_urllib3_client")
