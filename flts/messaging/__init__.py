"""Kafka: the consume loop, the codec of records, the count of attempts, and the publisher."""
