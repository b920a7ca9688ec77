"""Pure functions from tables to a data set that is split, sampled and scaled."""
