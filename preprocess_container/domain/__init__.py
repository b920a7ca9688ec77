"""Pure functions: from tables to a split, sampled, scaled data set."""
