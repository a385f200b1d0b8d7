"""What every hop recorded, one source a file."""
