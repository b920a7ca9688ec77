"""Prophet's fit, its posterior's maximum and its closed form: pure code that knows no message and no store."""
