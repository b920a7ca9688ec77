"""Kafka: the one consume loop, the codec of messages, attempts and the publisher."""
