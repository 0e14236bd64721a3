"""The project's own benchmark: the worker against its peers and against the limit. Run it by ``python -m bench``."""
