"""Pure functions of the gateway: keys, uploads and the views of runs."""
