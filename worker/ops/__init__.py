"""The operations endpoint: read-only views of a running worker (contract 8)."""
