"""The numbers: pure functions on arrays that know no file, no message and no model library."""
