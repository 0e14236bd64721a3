"""Everything at once on one machine: a private RabbitMQ node, the venue simulator, the worker, a stream of cancels."""
