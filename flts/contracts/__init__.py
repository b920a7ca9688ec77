"""The messages between services: claim checks, events and topics."""
