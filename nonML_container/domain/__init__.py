"""How models that are no network are fitted: pure code that knows no message and no store."""
