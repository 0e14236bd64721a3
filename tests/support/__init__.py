"""What tests of several parts need: time that scales, a real broker, certificates."""
