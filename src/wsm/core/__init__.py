"""What wsm decides, without I/O.

Nothing here opens a socket, reads a clock, an environment or a random number: time and facts come in
as arguments, decisions go out as values. Imports the standard library and msgspec, nothing else.
"""
