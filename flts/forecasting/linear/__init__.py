"""LINEAR: ridge regressions that forecast all steps of a horizon at once."""
