"""The venue's side of the shell: WebSockets that carry text messages and say what became of them. Nothing is decided here."""
