"""RabbitMQ: deliveries in, events out, on connections that are either up or lost and never heal by themselves."""
