"""The media core in C, and how it is built where a compiler is."""
