"""Wire: bytes to values and back. Pure: no socket, clock, random number or logger."""
