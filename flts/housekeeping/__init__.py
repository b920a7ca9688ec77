"""What is removed from the store, and when: old runs by the janitor, a data set by a person."""
