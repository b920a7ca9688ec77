"""The work of every trainer around its fit: read and check the rows, calibrate, store, record, announce."""
