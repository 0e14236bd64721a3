"""All decisions of the worker, as plain synchronous code: no socket, clock, random number or logger within reach."""
