"""Pure serving code: requests, champions, micro-batches and batch forecasts."""
