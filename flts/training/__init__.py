"""What every trainer does around its fit: read the claimed rows, check, calibrate, store, record, announce."""
