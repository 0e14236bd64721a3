"""The venue's shell: WebSockets that carry text messages and tell what became of them. Nothing is decided here."""
