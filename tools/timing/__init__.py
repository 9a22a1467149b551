"""Time and memory of the losses against plain dense references: `make bench`."""
