"""What Relive decides: values in, values out. No I/O, no clock, no randomness that isn't given."""
