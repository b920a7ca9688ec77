"""Kafka: the consume loop, the codec of messages, attempts and the publisher."""
