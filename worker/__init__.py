"""Carries order-cancel commands from RabbitMQ to a trading venue and reports what became of each one."""

__version__ = "0.1.0"
