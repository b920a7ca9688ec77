"""`make bench-forecast`: FLTS against statsforecast and LightGBM, on the same rows from the same origins."""
