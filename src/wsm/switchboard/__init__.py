"""The commands for who connects numbers: sessions made, started, paired, tried out and looked at.

commands  the parser, and the commands that ask one thing
login     a code drawn or typed, a passkey, and what happens until the number works
drawing   codes to scan, in a terminal and as a picture
words     what is known of a session, in plain words
"""
