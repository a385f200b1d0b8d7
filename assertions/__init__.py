"""One module a quantity: its tree of steps. Pure."""
